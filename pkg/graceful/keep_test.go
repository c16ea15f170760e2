package graceful_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/8265a91a/supervisor/internal/fdstoretest"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/fdstore"
	"github.com/8265a91a/supervisor/pkg/graceful"
)

// barrier returns when m has worked through all messages.
func barrier(t *testing.T, m *fdstoretest.Manager) {
	t.Helper()
	store, err := fdstore.Open(m.Socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	if err := store.Barrier(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestKeepLeavesNoGap counts what is stored after each message.
func TestKeepLeavesNoGap(t *testing.T) {
	m := fdstoretest.New(t)
	t.Setenv("NOTIFY_SOCKET", m.Socket)
	w, err := graceful.New(graceful.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer end(t, w)
	for _, text := range []string{"one", "two", "three"} {
		if err := w.Keep("state", []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	barrier(t, m)
	stored := map[string]bool{}
	kept := false
	for _, message := range m.Messages() {
		for _, name := range []string{"state", "state.next"} {
			if message.Has("FDNAME=" + name) {
				stored[name] = message.Has("FDSTORE=1")
			}
		}
		now := stored["state"] || stored["state.next"]
		if kept && !now {
			t.Errorf("after %q nothing is kept", message.Lines)
		}
		kept = now
	}
	entries := m.Entries()
	if len(entries) != 1 || entries[0].Name != "state" {
		t.Fatalf("stored: %v", m.Names())
	}
	if data, err := sys.ReadMemfd(entries[0].FD.Num(), 100); string(data) != "three" || err != nil {
		t.Errorf("kept %q, %v", data, err)
	}
}

// TestStateOfAKilledGeneration: it had stored the new state, and removed the old one, when it was killed.
func TestStateOfAKilledGeneration(t *testing.T) {
	m := fdstoretest.New(t)
	store, err := fdstore.Open(m.Socket)
	if err != nil {
		t.Fatal(err)
	}
	memfd, err := sys.SealedMemfd("state", []byte("6"))
	if err != nil {
		t.Fatal(err)
	}
	defer memfd.Close()
	if err := store.Add("count.next", memfd.Num(), false); err != nil {
		t.Fatal(err)
	}
	barrier(t, m)
	start(t, m, "state").stop(t, syscall.SIGTERM)
	barrier(t, m)
	entries := m.Entries()
	if len(entries) != 1 || entries[0].Name != "count" {
		t.Fatalf("stored: %v", m.Names())
	}
	if data, err := sys.ReadMemfd(entries[0].FD.Num(), 100); string(data) != "7" || err != nil {
		t.Errorf("kept %q, %v", data, err)
	}
}

// TestKeepSaysWhatIsNotKept never claims that the next generation will find what it will not.
func TestKeepSaysWhatIsNotKept(t *testing.T) {
	t.Run("too large", func(t *testing.T) {
		m := fdstoretest.New(t)
		t.Setenv("NOTIFY_SOCKET", m.Socket)
		w, err := graceful.New(graceful.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer end(t, w)
		if err := w.Keep("state", []byte("small")); err != nil {
			t.Fatal(err)
		}
		if err := w.Keep("state", make([]byte, 64<<20+1)); err == nil {
			t.Error("what State will not read was kept")
		}
		barrier(t, m)
		if names := m.Names(); !slices.Equal(names, []string{"state"}) {
			t.Errorf("stored: %v", names)
		}
	})
	t.Run("store is full", func(t *testing.T) {
		m := fdstoretest.New(t)
		m.SetMax(2)
		t.Setenv("NOTIFY_SOCKET", m.Socket)
		t.Setenv("FDSTORE", "2")
		w, err := graceful.New(graceful.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer end(t, w)
		for _, name := range []string{"a", "b", "b"} { // the last replaces without room for both
			if err := w.Keep(name, nil); err != nil {
				t.Errorf("keep %s: %v", name, err)
			}
		}
		if err := w.Keep("c", nil); !errors.Is(err, fdstore.ErrFull) {
			t.Errorf("keep one too many: %v", err)
		}
		barrier(t, m)
		// The next generation knows what was passed to it; a unit's sockets take no room.
		fd, _ := open(t, sys.ListenSpec{Network: "udp", Host: "127.0.0.1"})
		m.AddSocketUnit(t, "packets", fd.Num())
		for _, try := range []struct{ name, want string }{{"c", fdstore.ErrFull.Error()}, {"a", "kept: <nil>"}} {
			g := &generation{pid: spawn(t, m, "keep", 2, []string{"KEEP=" + try.name})}
			defer g.stop(t, syscall.SIGKILL)
			ctx, cancel := context.WithTimeout(context.Background(), long)
			defer cancel()
			var said string
			if err := m.Wait(ctx, func(msg fdstoretest.Message) bool {
				said = strings.Join(msg.Lines, " ")
				return strings.HasPrefix(said, "STATUS=kept: ")
			}); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(said, try.want) {
				t.Errorf("keep %s: %q, want %q in it", try.name, said, try.want)
			}
			g.stop(t, syscall.SIGTERM)
		}
	})
}

// end runs w to its end.
func end(t *testing.T, w *graceful.Worker) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Error(err)
	}
}
