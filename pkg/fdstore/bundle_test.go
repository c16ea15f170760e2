package fdstore_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/8265a91a/supervisor/internal/fdstoretest"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/fdstore"
)

// bundled returns n entries that are duplicates of one listening socket: what matters here is their number.
func bundled(tb testing.TB, n int) []fdstore.Named {
	tb.Helper()
	fd := listener(tb)
	entries := make([]fdstore.Named, n)
	for i := range entries {
		entries[i] = fdstore.Named{Name: fmt.Sprintf("supervisor.socket.listener-%d", i), Meta: strings.Repeat("m", i%3), FD: fd}
	}
	return entries
}

func listener(tb testing.TB) *sys.FD {
	tb.Helper()
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { fd.Close() })
	return fd
}

func closeNamed(entries []fdstore.Named) {
	for _, e := range entries {
		e.FD.Close()
	}
}

func checkBundle(tb testing.TB, bundle *sys.FD, want []fdstore.Named) {
	tb.Helper()
	got, err := fdstore.ReadBundle(bundle)
	if err != nil {
		tb.Fatal(err)
	}
	defer closeNamed(got)
	if len(got) != len(want) {
		tb.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i].Name != want[i].Name || got[i].Meta != want[i].Meta {
			tb.Fatalf("entry %d is %q, %q, want %q, %q", i, got[i].Name, got[i].Meta, want[i].Name, want[i].Meta)
		}
		same, err := sys.SameDescription(got[i].FD.Num(), want[i].FD.Num())
		if err != nil || !same {
			tb.Fatalf("entry %d (%s) is another descriptor (%v)", i, got[i].Name, err)
		}
	}
}

func TestBundleHoldsEverythingInOrderAndCanBeReadAgain(t *testing.T) {
	for _, n := range []int{0, 1, 249, 250, 251, 1000} {
		entries := bundled(t, n)
		bundle, err := fdstore.NewBundle(entries)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			checkBundle(t, bundle, entries)
		}
		bundle.Close()
	}
}

// Different sockets, so that a mistake in the order cannot hide.
func TestBundleKeepsIdentities(t *testing.T) {
	var entries []fdstore.Named
	for i := range 300 {
		entries = append(entries, fdstore.Named{Name: fmt.Sprint(i), FD: listener(t)})
	}
	bundle, err := fdstore.NewBundle(entries)
	if err != nil {
		t.Fatal(err)
	}
	defer bundle.Close()
	checkBundle(t, bundle, entries)
}

// A reader that dies half-way leaves its peek offset behind in the socket that all holders share.
func TestBundleSurvivesAReaderThatDiedHalfWay(t *testing.T) {
	entries := bundled(t, 700)
	bundle, err := fdstore.NewBundle(entries)
	if err != nil {
		t.Fatal(err)
	}
	defer bundle.Close()
	if err := sys.SetPeekOffset(bundle.Num(), 0); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		m, err := sys.ReceiveRights(bundle, make([]byte, 64), true)
		if err != nil {
			t.Fatal(err)
		}
		sys.CloseAll(m.FDs)
	}
	dup, err := bundle.Dup()
	if err != nil {
		t.Fatal(err)
	}
	defer dup.Close()
	checkBundle(t, dup, entries)
}

func TestBundleOutlivesEntriesAndMaker(t *testing.T) {
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	before, err := sys.Inspect(fd.Num())
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := fdstore.NewBundle([]fdstore.Named{{Name: "web", FD: fd}})
	fd.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer bundle.Close()
	got, err := fdstore.ReadBundle(bundle)
	if err != nil {
		t.Fatal(err)
	}
	defer closeNamed(got)
	after, err := sys.Inspect(got[0].FD.Num())
	if err != nil {
		t.Fatal(err)
	}
	if after != before {
		t.Errorf("socket is %+v, was %+v", after, before)
	}
}

// The fake drops what hangs up, as systemd does: a bundle always does, its sender is closed.
func TestBundleInStore(t *testing.T) {
	manager := fdstoretest.New(t)
	store := open(t, manager)
	bundle, err := fdstore.NewBundle(bundled(t, 600))
	if err != nil {
		t.Fatal(err)
	}
	defer bundle.Close()
	if err := store.Add("supervisor.bundle.1", bundle.Num(), false); err != nil {
		t.Fatal(err)
	}
	barrier(t, store)
	entries := manager.Entries()
	if len(entries) != 1 || entries[0].Name != "supervisor.bundle.1" {
		t.Fatalf("stored: %+v", entries)
	}
	got, err := fdstore.ReadBundle(entries[0].FD)
	if err != nil {
		t.Fatal(err)
	}
	closeNamed(got)
	if len(got) != 600 {
		t.Errorf("%d entries, want 600", len(got))
	}
}

func TestReadBundleRefusesOtherDescriptors(t *testing.T) {
	a, b, err := sys.Socketpair(syscall.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	// Empty.
	if _, err := fdstore.ReadBundle(a); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("empty socket: %v", err)
	}
	// Descriptors, but not a bundle's: they must not stay open, which TestMain checks.
	if err := sys.SendRights(b, []byte("hello"), []int{a.Num(), b.Num()}); err != nil {
		t.Fatal(err)
	}
	if _, err := fdstore.ReadBundle(a); err == nil || !strings.Contains(err.Error(), "not a bundle") {
		t.Errorf("foreign message: %v", err)
	}
	r, w, err := sys.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := fdstore.ReadBundle(r); err == nil {
		t.Error("a pipe was read as a bundle")
	}
}

func TestReadBundleRefusesWrongManifest(t *testing.T) {
	for _, tt := range []struct{ name, manifest string }{
		{"garbage", "{"},
		{"too few names", `[{"name":"a"}]`},
		{"too many names", `[{"name":"a"},{"name":"b"},{"name":"c"}]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			memfd, err := sys.SealedMemfd("test", []byte(tt.manifest))
			if err != nil {
				t.Fatal(err)
			}
			defer memfd.Close()
			r, w, err := sys.Socketpair(syscall.SOCK_SEQPACKET)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if err := sys.SendRights(w, []byte("supervisor bundle 1"), []int{memfd.Num()}); err != nil {
				t.Fatal(err)
			}
			if err := sys.SendRights(w, []byte("+"), []int{memfd.Num(), memfd.Num()}); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if got, err := fdstore.ReadBundle(r); err == nil {
				closeNamed(got)
				t.Errorf("accepted, %d entries", len(got))
			} else if errors.Is(err, io.EOF) {
				t.Errorf("unclear error: %v", err)
			}
		})
	}
}

func BenchmarkBundle(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		entries := bundled(b, n)
		b.Run(fmt.Sprintf("new/%d", n), func(b *testing.B) {
			for b.Loop() {
				bundle, err := fdstore.NewBundle(entries)
				if err != nil {
					b.Fatal(err)
				}
				bundle.Close()
			}
		})
		b.Run(fmt.Sprintf("read/%d", n), func(b *testing.B) {
			bundle, err := fdstore.NewBundle(entries)
			if err != nil {
				b.Fatal(err)
			}
			defer bundle.Close()
			for b.Loop() {
				checkBundleLen(b, bundle, n)
			}
		})
	}
}

func checkBundleLen(b *testing.B, bundle *sys.FD, n int) {
	got, err := fdstore.ReadBundle(bundle)
	if err != nil {
		b.Fatal(err)
	}
	closeNamed(got)
	if len(got) != n {
		b.Fatalf("%d entries, want %d", len(got), n)
	}
}
