package divert_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/divert"
	"github.com/8265a91a/supervisor/internal/sys"
)

// TestKilledGenerationsLoseNothing replaces a worker that has no drain at all: each old one is killed with SIGKILL, but
// only after its traffic has left it, it is quiet, and it holds no connection.
func TestKilledGenerationsLoseNothing(t *testing.T) {
	for name, test := range map[string]struct {
		role  string
		spec  sys.ListenSpec
		steer bool
	}{
		"steer":                   {"serve", sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"}, true},
		"steer a blocking worker": {"accept", sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"}, true},
		"fence":                   {"serve", sys.ListenSpec{Network: "unix", Path: filepath.Join(t.TempDir(), "s")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			a := open(t, test.spec)
			s := inspect(t, a)
			slots := []*sys.FD{a, a}
			if test.steer {
				slots[divert.SlotB] = join(t, a)
			}
			old := spawn(t, test.role, 0, a)
			old.await(t)
			stop, stopLate := load(s.Network, s.Address, 2), loadLate(s.Network, s.Address, 6, 50*time.Millisecond)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			for n := 1; n <= 10; n++ {
				next := spawn(t, test.role, 0, slots[n%2])
				next.await(t)
				if test.steer {
					if err := divert.Steer(a.Num(), n%2); err != nil {
						t.Fatal(err)
					}
					if err := divert.Quiet(ctx, slots[(n-1)%2].Num(), 20*time.Millisecond); err != nil {
						t.Fatal(err)
					}
				} else {
					fence(t, s, old.pid).Close()
				}
				idle(ctx, t, old, slots)
				old.kill()
				old = next
			}
			for _, stop := range []func() (int64, []error){stop, stopLate} {
				requests, failures := stop()
				if len(failures) > 0 {
					t.Errorf("%d of %d failed, first: %v", len(failures), requests, failures[0])
				}
				t.Logf("%d requests", requests)
			}
		})
	}
}

// idle waits until the worker holds nothing, and goes on holding nothing.
func idle(ctx context.Context, t *testing.T, worker *process, sockets []*sys.FD) {
	t.Helper()
	var listeners []sys.Socket
	for _, fd := range sockets {
		listeners = append(listeners, inspect(t, fd))
	}
	for range 3 {
		err := divert.WaitIdle(ctx, func() (int, error) { return divert.Connections([]int{worker.pid}, listeners) })
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
