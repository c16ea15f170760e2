package sys_test

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"github.com/8265a91a/supervisor/internal/sys"
)

// A hidden listener gives out what had arrived, and another one of its address gets the rest, or nobody.
func TestHideListener(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: host, ReusePort: true, DeferAccept: 60})
		if err != nil {
			t.Fatal(err)
		}
		defer fd.Close()
		s, err := sys.Inspect(fd.Num())
		if err != nil {
			t.Fatal(err)
		}
		early, err := net.Dial("tcp", s.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer early.Close()
		if err := sys.HideListener(fd.Num()); err != nil {
			t.Fatal(err)
		}
		if _, err := net.Dial("tcp", s.Address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("it is seen: %v", err)
		}
		if _, err := early.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if used, _, err := sys.Backlog(fd.Num()); used != 1 || err != nil {
			t.Errorf("queue %d, %v; want the handshake that had begun", used, err)
		}
		other, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: host, Port: uint32(s.Port), ReusePort: true})
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		for range 10 {
			c, err := net.Dial("tcp", s.Address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		if used, _, err := sys.Backlog(other.Num()); used != 10 || err != nil {
			t.Errorf("the other one has %d of 10, %v", used, err)
		}
	}
}
