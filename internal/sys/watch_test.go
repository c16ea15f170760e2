package sys_test

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

// watched opens sockets and watches them.
func watched(t *testing.T, networks ...string) (w *sys.Watch, fds []*sys.FD, addresses []string) {
	t.Helper()
	var numbers []int
	for _, network := range networks {
		fd, err := sys.OpenListener(sys.ListenSpec{Network: network, Host: "127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { fd.Close() })
		s, err := sys.Inspect(fd.Num())
		if err != nil {
			t.Fatal(err)
		}
		fds, numbers, addresses = append(fds, fd), append(numbers, fd.Num()), append(addresses, s.Address)
	}
	w, err := sys.NewWatch(numbers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w, fds, addresses
}

// send makes a connection, or sends a datagram.
func send(t *testing.T, network, address string) {
	t.Helper()
	c, err := net.Dial(network, address)
	if err == nil && network == "udp" {
		_, err = c.Write([]byte("x"))
	}
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { c.Close() })
}

func TestWatch(t *testing.T) {
	for i, network := range []string{"tcp", "udp"} {
		for _, early := range []bool{false, true} {
			w, fds, addresses := watched(t, "tcp", "udp")
			done := make(chan error, 1)
			if early {
				send(t, network, addresses[i])
			}
			go func() { done <- w.Wait() }()
			if !early {
				send(t, network, addresses[i])
			}
			if err := <-done; err != nil {
				t.Errorf("%s: %v", network, err)
			}
			for j, fd := range fds {
				if waits, err := sys.Readable(fd.Num()); waits != (i == j) || err != nil {
					t.Errorf("socket %d: something waits: %v, %v", j, waits, err)
				}
				if on, err := sys.Nonblock(fd.Num()); on || err != nil {
					t.Errorf("socket %d is non-blocking (%v)", j, err)
				}
			}
		}
	}
}

func TestWatchCloses(t *testing.T) {
	w, _, _ := watched(t, "tcp")
	done := make(chan error, 1)
	go func() { done <- w.Wait() }()
	w.Close()
	if err := <-done; err == nil {
		t.Error("a closed watch has seen something")
	}
	w.Close()
	var none *sys.Watch
	none.Close()
	if _, err := sys.NewWatch([]int{-1}); err == nil {
		t.Error("it watches what is not open")
	}
}

// A listener that somebody has shut down is no reason to look.
func TestWatchLeavesOutTheDead(t *testing.T) {
	w, fds, addresses := watched(t, "tcp", "tcp")
	if err := syscall.Shutdown(fds[0].Num(), syscall.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	sent := make(chan struct{})
	time.AfterFunc(50*time.Millisecond, func() {
		send(t, "tcp", addresses[1])
		close(sent)
	})
	if err := w.Wait(); err != nil {
		t.Error(err)
	}
	if waits, err := sys.Readable(fds[1].Num()); !waits || err != nil {
		t.Errorf("nothing waits, %v", err)
	}
	<-sent
}
