package sockets_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/leaktest"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/fdstore"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }

func listener(t testing.TB) *sys.FD {
	t.Helper()
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1", Backlog: 77})
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func socket(t testing.TB, origin sockets.Origin, fdname string) *sockets.Socket {
	t.Helper()
	s, err := sockets.New(listener(t), origin, fdname)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newSet(t testing.TB) *sockets.Set {
	set := sockets.NewSet()
	t.Cleanup(set.Close)
	return set
}

// fake is a socket that needs no descriptor: only its name and place matter.
func fake(name, fdname string, index, cookie int) *sockets.Socket {
	return &sockets.Socket{Meta: sockets.Meta{Name: name, FDName: fdname, Index: index, Cookie: uint64(cookie)}}
}

func names(list []*sockets.Socket) (names []string) {
	for _, s := range list {
		names = append(names, s.Name)
	}
	return names
}

func TestNew(t *testing.T) {
	s := socket(t, sockets.Bound, "http")
	defer s.FD.Close()
	cookie, err := sys.Cookie(s.FD.Num())
	if err != nil || s.Cookie != cookie || s.Backlog != 77 || s.Info.Network != "tcp" {
		t.Errorf("%+v, %v", s, err)
	}
	r, w, err := sys.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := sockets.New(r, sockets.Unit, "x"); err == nil {
		t.Error("a pipe is taken for a socket")
	}
	if r.Num() >= 0 {
		t.Error("the descriptor is not closed on error")
	}
}

// The same socket, however it comes, is held once.
func TestMergeByCookie(t *testing.T) {
	set := newSet(t)
	first, added := set.Add(socket(t, sockets.Unit, "http"))
	if !added || first.Name != "http" {
		t.Fatalf("%+v", first)
	}
	dup, err := first.FD.Dup()
	if err != nil {
		t.Fatal(err)
	}
	again, err := sockets.New(dup, sockets.Fetched, "")
	if err != nil {
		t.Fatal(err)
	}
	again.Namespace, again.Interface = "blue", "eth7"
	held, added := set.Add(again)
	if added || held != first || held.Origin != sockets.Unit || held.Namespace != "blue" || held.Interface != "eth7" {
		t.Errorf("added %v, held %+v", added, held)
	}
	if dup.Num() >= 0 {
		t.Error("the newcomer's descriptor is not closed")
	}
	if set.Len() != 1 || set.Get("http") != first || set.ByCookie(first.Cookie) != first {
		t.Error("the set is not what it was")
	}
}

// The second socket of a pair stands for the first, and goes with it.
func TestPair(t *testing.T) {
	set := newSet(t)
	s, _ := set.Add(socket(t, sockets.Bound, "http"))
	second := listener(t)
	dup, err := second.Dup()
	if err != nil {
		t.Fatal(err)
	}
	set.Pair(s, second)
	if s.Slot(0) != s.FD || s.Slot(1) != second {
		t.Error("the slots are wrong")
	}
	if inode, err := s.Inode(1); err != nil || inode == s.Info.Inode {
		t.Errorf("inode of slot 1: %d, %v", inode, err)
	}
	found, err := sockets.New(dup, sockets.Fetched, "")
	if err != nil {
		t.Fatal(err)
	}
	cookie := found.Cookie
	if held, added := set.Add(found); added || held != s {
		t.Errorf("added %v, held %+v", added, held)
	}
	set.Remove(s)
	if s.FD.Num() >= 0 || second.Num() >= 0 || set.ByCookie(cookie) != nil || set.Len() != 0 {
		t.Error("something of the pair is left")
	}
}

// The second socket may be made the first one: what was there before is that of slot 1 then.
func TestPairBefore(t *testing.T) {
	set := newSet(t)
	s, _ := set.Add(socket(t, sockets.Bound, "http"))
	old, oldCookie := s.FD, s.Cookie
	fd := listener(t)
	info, err := sys.Inspect(fd.Num())
	if err != nil {
		t.Fatal(err)
	}
	set.PairBefore(s, fd, info)
	if s.Slot(0) != fd || s.Slot(1) != old || s.Info != info || s.Cookie != info.Cookie {
		t.Errorf("the roles are not exchanged: %+v", s)
	}
	if set.ByCookie(info.Cookie) != s || set.ByCookie(oldCookie) != s || set.Len() != 1 {
		t.Error("a half does not lead to the pair")
	}
	set.Remove(s)
	if fd.Num() >= 0 || old.Num() >= 0 || set.ByCookie(info.Cookie) != nil || set.ByCookie(oldCookie) != nil {
		t.Error("something of the pair is left")
	}
}

// Names are unique, and such as systemd accepts.
func TestNames(t *testing.T) {
	set := newSet(t)
	for i, s := range []*sockets.Socket{
		fake("", "http", 0, 1), fake("", "http", 1, 2), fake("http", "", 0, 3), fake("", "", 0, 4), fake("", "", 0, 5),
		fake("http.2", "", 0, 6), fake("", `esc\x2daped.socket`, 0, 7), fake("", "tp@a:b.socket", 0, 8), fake("", strings.Repeat("n", 255), 0, 9),
		fake("", strings.Repeat("n", 255), 1, 10),
	} {
		if i >= 3 && i < 5 {
			s.Info = sys.Socket{Network: "unix", Address: "/run/a:b\\c\x01" + strings.Repeat("ö", 300), Device: "eth0"}
		}
		set.Add(s)
	}
	seen := map[string]bool{}
	for _, s := range set.Ordered(nil) {
		if seen[s.Name] {
			t.Errorf("%q is there twice", s.Name)
		}
		seen[s.Name] = true
		if err := fdstore.ValidName("supervisor.alternate-first." + s.Name); err != nil {
			t.Errorf("%q: %v", s.Name, err)
		}
		if strings.ContainsAny(s.Name, "\\:") {
			t.Errorf("%q holds what systemd does not keep", s.Name)
		}
		if set.Get(s.Name) != s {
			t.Errorf("%q is not found", s.Name)
		}
	}
	if !seen["http"] || !seen["http.2"] || !seen["http.3"] || !seen["http.2.2"] {
		t.Errorf("names: %v", seen)
	}
}

// The order does not depend on the order of arrival, and is a total one even for odd names.
func TestOrder(t *testing.T) {
	list := []*sockets.Socket{
		fake("z", "z", 0, 1), fake("a", "a", 0, 2), fake("unit.2", "unit", 1, 3), fake("unit.10", "unit", 2, 4), fake("unit", "unit", 0, 5),
		fake("x.10", "", 0, 6), fake("x.2", "", 0, 7), fake("x", "", 0, 8), fake("x.1y", "", 0, 9), fake("x.02", "", 0, 10), fake("x.", "", 0, 11),
		fake("x.-1", "", 0, 12), fake("x.99999999999999999999", "", 0, 13),
	}
	want := []string{"z", "unit", "unit.2", "unit.10", "x", "x.02", "x.2", "x.10", "x.", "x.-1", "x.1y", "x.99999999999999999999", "a"}
	for range 50 {
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		set := sockets.NewSet()
		for _, s := range list {
			set.Add(s)
		}
		got := names(set.Ordered([]string{"z", "nobody", "unit", ""}))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		// One that nobody has named comes where the name stands that was made for it.
		all := set.Ordered(nil)
		if diff := cmp.Diff(slices.Concat(want[12:], want[1:12], want[:1]), names(all)); diff != "" {
			t.Fatal(diff)
		}
		// What was handed out stays as it is.
		set.Remove(set.Get("x"))
		set.Add(fake("new", "new", 0, 99))
		if len(all) != len(list) || all[len(all)-1].Name != "z" {
			t.Fatalf("a list changed afterwards: %v", names(all))
		}
	}
}

func TestSameNameManyTimes(t *testing.T) {
	set := sockets.NewSet()
	const count = 10000
	for i := range count {
		set.Add(fake("", "shard", i, i+1))
	}
	for i, s := range set.Ordered(nil) {
		if i > 0 && s.Name != fmt.Sprint("shard.", i+1) || s.Index != i {
			t.Fatalf("socket %d is %q, index %d", i, s.Name, s.Index)
		}
	}
}

func BenchmarkAdd10000(b *testing.B) {
	for _, c := range []struct{ name, format string }{{"names", "s%d"}, {"same", "s%.0s"}} {
		b.Run(c.name, func(b *testing.B) {
			for range b.N {
				set := sockets.NewSet()
				for i := range 10000 {
					set.Add(fake("", fmt.Sprintf(c.format, i), i, i+1))
				}
			}
		})
	}
}

func BenchmarkOrdered10000(b *testing.B) {
	set := sockets.NewSet()
	var configured []string
	for i := range 10000 {
		name := fmt.Sprint("s", i)
		configured = append(configured, name)
		set.Add(fake("", name, 0, i+1))
	}
	b.Run("all", func(b *testing.B) {
		for range b.N {
			set.Ordered(nil)
		}
	})
	b.Run("configured", func(b *testing.B) {
		for range b.N {
			set.Ordered(configured)
		}
	})
}
