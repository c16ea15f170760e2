package worker_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// listener is a running Notify and what came out of it.
type listener struct {
	*worker.Notify
	messages chan worker.Message
	errs     chan error
	ended    chan struct{}
}

func anybody(int, uint32) bool { return true }

// serve runs n until the test ends.
func serve(t *testing.T, n *worker.Notify, allowed func(int, uint32) bool) *listener {
	t.Helper()
	l := &listener{n, make(chan worker.Message, 1000), make(chan error, 1000), make(chan struct{})}
	n.OnError = func(err error) { l.errs <- err }
	go func() {
		defer close(l.ended)
		n.Run(allowed, func(m worker.Message) { l.messages <- m })
	}()
	t.Cleanup(func() {
		n.Close()
		<-l.ended
	})
	return l
}

func listenNotify(t *testing.T) *worker.Notify {
	t.Helper()
	n, err := worker.ListenNotify(filepath.Join(t.TempDir(), "notify"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func send(t *testing.T, n *worker.Notify, text string, fds ...int) {
	t.Helper()
	if err := sys.SendTo(n.Path(), []byte(text), fds); err != nil {
		t.Fatalf("send %.20q: %v", text, err)
	}
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(limit):
		t.Fatal("nothing arrives")
		panic("unreachable")
	}
}

func TestNotify(t *testing.T) {
	l := serve(t, listenNotify(t), anybody)
	st, err := os.Stat(l.Path())
	if err != nil || st.Mode().Perm() != 0o666 {
		t.Errorf("mode %v: %v", st.Mode(), err)
	}
	send(t, l.Notify, "READY=1\nSTATUS=serving")
	want := worker.Message{PID: os.Getpid(), UID: uint32(os.Getuid()), Ready: true, Status: "serving", HasStatus: true, FDPoll: true}
	if diff := cmp.Diff(want, receive(t, l.messages), ignoreFDs); diff != "" {
		t.Error(diff)
	}
}

func TestNotifyDescriptors(t *testing.T) {
	l := serve(t, listenNotify(t), anybody)
	memfd, err := sys.SealedMemfd("test", []byte("state"))
	if err != nil {
		t.Fatal(err)
	}
	defer memfd.Close()
	send(t, l.Notify, "FDSTORE=1\nFDNAME=state", memfd.Num(), memfd.Num())
	m := receive(t, l.messages)
	if len(m.FDs) != 2 || m.FDName != "state" {
		t.Fatalf("%+v", m)
	}
	if data, err := sys.ReadMemfd(m.FDs[1].Num(), 100); string(data) != "state" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
	sys.CloseAll(m.FDs)

	many := make([]int, sys.MaxRights)
	for i := range many {
		many[i] = memfd.Num()
	}
	send(t, l.Notify, "FDSTORE=1", many...)
	m = receive(t, l.messages)
	if len(m.FDs) != sys.MaxRights {
		t.Errorf("%d descriptors", len(m.FDs))
	}
	sys.CloseAll(m.FDs)

	// Not asked to be stored: the leak test sees whether they are closed.
	send(t, l.Notify, "STATUS=x", many...)
	if m = receive(t, l.messages); len(m.FDs) != 0 {
		t.Errorf("%d descriptors without FDSTORE", len(m.FDs))
	}
}

// A barrier is answered only when everything before it has been handled.
func TestNotifyBarrier(t *testing.T) {
	n := listenNotify(t)
	release, handled, ended := make(chan struct{}), make(chan string, 10), make(chan struct{})
	go func() {
		defer close(ended)
		n.Run(anybody, func(m worker.Message) {
			if m.HasStatus {
				<-release
			}
			handled <- fmt.Sprintf("%s/%t/%d", m.Status, m.Barrier, len(m.FDs))
		})
	}()
	defer func() { n.Close(); <-ended }()
	r, w, err := sys.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	send(t, n, "STATUS=slow")
	send(t, n, "BARRIER=1", w.Num())
	w.Close()
	if err := sys.SetNonblock(r.Num(), true); err != nil {
		t.Fatal(err)
	}
	f := r.File("barrier")
	defer f.Close()
	f.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := f.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the barrier was answered too early: %v", err)
	}
	close(release)
	f.SetReadDeadline(time.Now().Add(limit))
	if _, err := f.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the barrier was not answered: %v", err)
	}
	if got := []string{<-handled, <-handled}; got[0] != "slow/false/0" || got[1] != "/true/0" {
		t.Errorf("handled %q", got)
	}
}

func TestNotifyDropsStrangersAndNonsense(t *testing.T) {
	denied := true
	l := serve(t, listenNotify(t), func(pid int, uid uint32) bool {
		if pid != os.Getpid() || uid != uint32(os.Getuid()) {
			t.Errorf("sender %d of user %d", pid, uid)
		}
		was := denied
		denied = false
		return !was
	})
	memfd, err := sys.SealedMemfd("test", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer memfd.Close()
	send(t, l.Notify, "FDSTORE=1", memfd.Num())
	send(t, l.Notify, "FDSTORE=1\nSTATUS="+strings.Repeat("x", 5000), memfd.Num())
	send(t, l.Notify, "")
	send(t, l.Notify, "STATUS=after")
	for _, want := range []string{"does not belong", "longer than 4096", "empty"} {
		if err := receive(t, l.errs); !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if m := receive(t, l.messages); m.HasStatus { // the empty one
		t.Errorf("%+v", m)
	}
	if m := receive(t, l.messages); m.Status != "after" {
		t.Errorf("%+v", m)
	}
}

func TestNotifyOverwhelmed(t *testing.T) {
	l := serve(t, listenNotify(t), anybody)
	memfd, err := sys.SealedMemfd("test", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer memfd.Close()
	soft, _, err := sys.NofileLimit()
	if err != nil {
		t.Fatal(err)
	}
	if soft > 20000 {
		t.Skip("the limit on descriptors is too high to be reached")
	}
	many := make([]int, sys.MaxRights)
	for i := range many {
		many[i] = memfd.Num()
	}
	var held []*sys.FD
	defer func() { sys.CloseAll(held) }()
	for lost := false; !lost; {
		err := sys.SendTo(l.Path(), []byte("FDSTORE=1"), many)
		if errors.Is(err, syscall.EMFILE) { // not even one is left for the sender's socket
			sys.CloseAll(held[:10])
			held = held[10:]
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		select {
		case m := <-l.messages:
			held = append(held, m.FDs...)
		case err := <-l.errs:
			lost = errors.Is(err, sys.ErrTruncated)
			if !lost {
				t.Fatal(err)
			}
		}
	}
	sys.CloseAll(held)
	send(t, l.Notify, "READY=1")
	if m := receive(t, l.messages); !m.Ready {
		t.Errorf("%+v", m)
	}
}

// What was sent while there was no supervisor is there for the next one.
func TestAdoptNotify(t *testing.T) {
	n := listenNotify(t)
	dup, err := sys.DupNum(n.FD())
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Release(); err != nil {
		t.Fatal(err)
	}
	n.Release()
	send(t, n, "READY=1")
	again, err := worker.AdoptNotify(dup, n.Path())
	if err != nil {
		t.Fatal(err)
	}
	l := serve(t, again, anybody)
	if m := receive(t, l.messages); !m.Ready || m.PID != os.Getpid() {
		t.Errorf("%+v", m)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(n.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the path was not removed: %v", err)
	}
}

func TestAdoptNotifyOfSomethingElse(t *testing.T) {
	a, b, err := sys.Socketpair(1)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := worker.AdoptNotify(a, "/x"); err == nil || !strings.Contains(err.Error(), "not unixgram") {
		t.Error(err)
	}
	null, err := sys.OpenNull()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := worker.AdoptNotify(null, "/x"); err == nil {
		t.Error("adopted /dev/null")
	}
	if a.Num() != -1 || null.Num() != -1 {
		t.Error("a descriptor was not closed")
	}
}

func TestNotifyPath(t *testing.T) {
	n := listenNotify(t)
	path := n.Path()
	newer, err := worker.ListenNotify(path) // takes the place of what is there
	if err != nil {
		t.Fatal(err)
	}
	defer newer.Close()
	n.Close()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the path of the newer socket was removed: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{file, "/no/such/dir/notify", "/" + strings.Repeat("x", 200)} {
		if _, err := worker.ListenNotify(bad); err == nil || !strings.HasPrefix(err.Error(), "listen on notify socket /") {
			t.Errorf("%.20s: %v", bad, err)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a file that is no socket was removed: %v", err)
	}
}
