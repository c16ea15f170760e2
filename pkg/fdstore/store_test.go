package fdstore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/fdstoretest"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/fdstore"
)

func open(tb testing.TB, manager *fdstoretest.Manager) *fdstore.Store {
	tb.Helper()
	store, err := fdstore.Open(manager.Socket)
	if err != nil {
		tb.Fatal(err)
	}
	return store
}

func barrier(tb testing.TB, store *fdstore.Store) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := store.Barrier(ctx); err != nil {
		tb.Fatal(err)
	}
}

func TestAddAndRemove(t *testing.T) {
	manager := fdstoretest.New(t)
	store := open(t, manager)
	a, b := listener(t), listener(t)
	for _, e := range []struct {
		name string
		fd   *sys.FD
	}{{"web", a}, {"admin", b}} {
		if err := store.Add(e.name, e.fd.Num(), true); err != nil {
			t.Fatal(err)
		}
	}
	barrier(t, store)
	if diff := cmp.Diff([]string{"admin", "web"}, manager.Names()); diff != "" {
		t.Error(diff)
	}
	if err := store.Remove("web"); err != nil {
		t.Fatal(err)
	}
	barrier(t, store)
	if diff := cmp.Diff([]string{"admin"}, manager.Names()); diff != "" {
		t.Error(diff)
	}
	if got := store.Len(); got != 1 {
		t.Errorf("Len is %d, want 1", got)
	}
	if same, err := sys.SameDescription(manager.Entries()[0].FD.Num(), b.Num()); err != nil || !same {
		t.Errorf("stored another descriptor (%v)", err)
	}
}

func TestRefusedBeforeSending(t *testing.T) {
	manager := fdstoretest.New(t)
	store := open(t, manager)
	store.SetMax(2)
	a, b, c := listener(t), listener(t), listener(t)
	if err := store.Add("a", a.Num(), true); err != nil {
		t.Fatal(err)
	}
	if err := store.Add("again", a.Num(), true); !errors.Is(err, fdstore.ErrDuplicate) || !strings.Contains(err.Error(), "stored as a") {
		t.Errorf("duplicate: %v", err)
	}
	store.Adopt("b", b.Num())
	if err := store.Add("c", c.Num(), true); !errors.Is(err, fdstore.ErrFull) {
		t.Errorf("full: %v", err)
	}
	if err := store.Remove("b"); err != nil {
		t.Fatal(err)
	}
	if err := store.Add("c", c.Num(), true); err != nil {
		t.Errorf("after removal: %v", err)
	}
	if err := store.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if err := store.Add("again", a.Num(), true); err != nil {
		t.Errorf("rename by removal: %v", err)
	}
	barrier(t, store)
	if diff := cmp.Diff([]string{"again", "c"}, manager.Names()); diff != "" {
		t.Error(diff)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"a", "supervisor.socket.web", "with space/\"", strings.Repeat("x", 255)} {
		if err := fdstore.ValidName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "a:b", `a\b`, "a\nFDSTOREREMOVE=1", "ä", "\x7f", strings.Repeat("x", 256)} {
		if err := fdstore.ValidName(name); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}

// What ValidName accepts comes back as it was sent.
func FuzzNameIsKept(f *testing.F) {
	for _, s := range []string{"web", "a:b", `a\b`, "", "ä", " ", "=", "FDNAME=x", strings.Repeat("x", 256), "a\nb"} {
		f.Add(s)
	}
	manager := fdstoretest.New(f)
	store := open(f, manager)
	r, w, err := sys.Pipe()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { r.Close(); w.Close() })
	f.Fuzz(func(t *testing.T, name string) {
		if fdstore.ValidName(name) != nil {
			if store.Add(name, w.Num(), false) == nil {
				t.Fatalf("%q is sent", name)
			}
			return
		}
		if err := store.Add(name, w.Num(), false); err != nil {
			t.Fatal(err)
		}
		barrier(t, store)
		if diff := cmp.Diff([]string{name}, manager.Names()); diff != "" {
			t.Fatal(diff)
		}
		if err := store.Remove(name); err != nil {
			t.Fatal(err)
		}
		barrier(t, store)
		if len(manager.Entries()) != 0 {
			t.Fatalf("%q stays stored", name)
		}
	})
}

func TestPolledEntriesAreDropped(t *testing.T) {
	manager := fdstoretest.New(t)
	store := open(t, manager)
	for _, pollable := range []bool{true, false} {
		r, w, err := sys.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := store.Add(fmt.Sprint("polled-", pollable), r.Num(), pollable); err != nil {
			t.Fatal(err)
		}
		barrier(t, store)
		w.Close()
	}
	if diff := cmp.Diff([]string{"polled-false"}, manager.Names()); diff != "" {
		t.Error(diff)
	}
}

func TestNotify(t *testing.T) {
	manager := fdstoretest.New(t)
	store := open(t, manager)
	if err := store.Notify("READY=1", "STATUS=two\nFDSTOREREMOVE=1\nlines"); err != nil {
		t.Fatal(err)
	}
	barrier(t, store)
	want := []fdstoretest.Message{
		{PID: os.Getpid(), Lines: []string{"READY=1", "STATUS=two FDSTOREREMOVE=1 lines"}},
		{PID: os.Getpid(), Lines: []string{"BARRIER=1"}, FDs: 1},
	}
	if diff := cmp.Diff(want, manager.Messages()); diff != "" {
		t.Error(diff)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := manager.WaitReady(ctx); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "READY", "=1", "STATUS=" + strings.Repeat("x", 4096)} {
		if err := store.Notify(bad); err == nil {
			t.Errorf("%.10q is sent", bad)
		}
	}
}

func TestOpen(t *testing.T) {
	if _, err := fdstore.Open(""); !errors.Is(err, fdstore.ErrNoNotifySocket) {
		t.Errorf("no socket: %v", err)
	}
	for _, bad := range []string{"vsock:2:1", "relative"} {
		if _, err := fdstore.Open(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	store, err := fdstore.Open(filepath.Join(t.TempDir(), "gone"))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Add("web", 0, true); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nobody there: %v", err)
	}
	if store.Len() != 0 {
		t.Error("counted what was not sent")
	}
}

// Nobody reads: the barrier ends with its context and leaves nothing open, which TestMain checks.
func TestBarrierEndsWithContext(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	silent, err := sys.OpenListener(sys.ListenSpec{Network: "unixgram", Path: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	store, err := fdstore.Open(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := store.Barrier(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Barrier: %v", err)
	}
}

func BenchmarkAddBarrier(b *testing.B) {
	for _, n := range []int{5, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			manager := fdstoretest.New(b)
			store := open(b, manager)
			var fds []*sys.FD
			for range n {
				fds = append(fds, listener(b))
			}
			for b.Loop() {
				for i, fd := range fds {
					if err := store.Add(fmt.Sprintf("socket-%d", i), fd.Num(), true); err != nil {
						b.Fatal(err)
					}
				}
				barrier(b, store)
				for i := range fds {
					if err := store.Remove(fmt.Sprintf("socket-%d", i)); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// TestNobodyReads fills the queue of a notify socket that nobody reads: what waits is bounded.
func TestNobodyReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	store, err := fdstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		err = store.TryNotify("STATUS=x")
	}
	if !errors.Is(err, fdstore.ErrBusy) {
		t.Fatalf("the queue is full: %v", err)
	}
	store.SetTimeout(50 * time.Millisecond)
	r, w, err := sys.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for name, send := range map[string]func() error{
		"notify":  func() error { return store.Notify("READY=1") },
		"add":     func() error { return store.Add("pipe", r.Num(), false) },
		"remove":  func() error { return store.Remove("pipe") },
		"barrier": func() error { return store.Barrier(t.Context()) },
	} {
		begun := time.Now()
		if err := send(); !errors.Is(err, fdstore.ErrBusy) || time.Since(begun) < 40*time.Millisecond {
			t.Errorf("%s: %v after %v", name, err, time.Since(begun))
		}
	}
	if store.Len() != 0 {
		t.Errorf("%d entries are accounted for, none was sent", store.Len())
	}
}
