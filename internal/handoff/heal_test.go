package handoff_test

import (
	"fmt"
	"net"
	"syscall"
	"testing"

	"github.com/8265a91a/supervisor/internal/divert"
	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
)

// A pair goes on as a pair, whichever of its halves a worker shut down: the kernel numbers them anew.
func TestHealPair(t *testing.T) {
	t.Parallel()
	for _, down := range [][]int{{0}, {1}, {0, 1}, {1, 0}} {
		for _, steered := range []int{0, 1} {
			t.Run(fmt.Sprintf("down %v steered %d", down, steered), func(t *testing.T) {
				t.Parallel()
				fd := listenAt(t)
				s, err := sockets.New(fd, sockets.Bound, "http")
				if err != nil {
					t.Fatal(err)
				}
				set := sockets.NewSet()
				set.Add(s)
				t.Cleanup(set.Close)
				if s.Alternate, err = divert.Join(s.FD.Num()); err != nil {
					t.Fatal(err)
				}
				if err := handoff.SteerTo(s, steered); err != nil {
					t.Fatal(err)
				}
				for range 3 { // each repair may exchange the halves again
					for _, slot := range down {
						if err := syscall.Shutdown(s.Slot(slot).Num(), syscall.SHUT_RDWR); err != nil {
							t.Fatal(err)
						}
					}
					if handoff.Heal(s) == "" {
						t.Error("nothing was said about it")
					}
					arrives(t, s, steered)
					for _, slot := range []int{1 - steered, steered} {
						if err := handoff.SteerTo(s, slot); err != nil {
							t.Fatal(err)
						}
						arrives(t, s, slot)
					}
				}
			})
		}
	}
}

// listenAt returns a listener at a port of its own that was asked for by number: one that the kernel chose is given up by
// shutdown().
func listenAt(t *testing.T) *sys.FD {
	t.Helper()
	for range 20 {
		probe, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		info, err := sys.Inspect(probe.Num())
		probe.Close()
		if err != nil {
			t.Fatal(err)
		}
		fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1", Port: uint32(info.Port), ReusePort: true})
		if err == nil {
			return fd
		}
	}
	t.Fatal("no free port")
	return nil
}

// arrives proves that ten connections wait at the half of slot and none at the other.
func arrives(t *testing.T, s *sockets.Socket, slot int) {
	t.Helper()
	before := [2]int{queued(t, s, 0), queued(t, s, 1)}
	for range 10 {
		c, err := net.Dial("tcp", s.Info.Address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	if here, there := queued(t, s, slot)-before[slot], queued(t, s, 1-slot)-before[1-slot]; here != 10 || there != 0 {
		t.Errorf("steered to slot %d: %d connections there, %d at the other half", slot, here, there)
	}
}

func queued(t *testing.T, s *sockets.Socket, slot int) int {
	t.Helper()
	used, _, err := sys.Backlog(s.Slot(slot).Num())
	if err != nil {
		t.Fatal(err)
	}
	return used
}
