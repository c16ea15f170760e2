package sys_test

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

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

// A hidden UDP socket gives out what had arrived and still answers, and another one of its address gets the rest, whatever the
// program of their group says, or nobody does.
func TestHideDatagrams(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		fd, err := sys.OpenListener(sys.ListenSpec{Network: "udp", Host: host, ReusePort: true})
		if err != nil {
			t.Fatal(err)
		}
		defer fd.Close()
		s, err := sys.Inspect(fd.Num())
		if err != nil {
			t.Fatal(err)
		}
		send := func() net.Conn {
			t.Helper()
			c, err := net.Dial("udp", s.Address)
			if err == nil {
				_, err = c.Write([]byte("x"))
			}
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(10 * time.Second))
			t.Cleanup(func() { c.Close() })
			return c
		}
		if err := sys.AttachReusePortIndex(fd.Num(), 0); err != nil {
			t.Fatal(err)
		}
		early := send()
		for range 2 {
			if err := sys.HideDatagrams(fd.Num()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := send().Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("it is seen: %v", err)
		}
		other, err := sys.OpenListener(sys.ListenSpec{Network: "udp", Host: host, Port: uint32(s.Port), ReusePort: true})
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		buf := make([]byte, 10)
		for range 20 {
			send()
			if n, _, err := syscall.Recvfrom(other.Num(), buf, syscall.MSG_DONTWAIT); n != 1 || err != nil {
				t.Fatalf("the other one got %d, %v", n, err)
			}
		}
		n, from, err := syscall.Recvfrom(fd.Num(), buf, syscall.MSG_DONTWAIT)
		if n != 1 || err != nil {
			t.Fatalf("what had arrived: %d, %v", n, err)
		}
		if err := syscall.Sendto(fd.Num(), buf[:n], 0, from); err != nil {
			t.Fatal(err)
		}
		if n, err := early.Read(buf); n != 1 || err != nil {
			t.Errorf("the answer: %d, %v", n, err)
		}
	}
	wildcard, err := sys.OpenListener(sys.ListenSpec{Network: "udp", Host: "0.0.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	defer wildcard.Close()
	if sys.HideDatagrams(wildcard.Num()) == nil {
		t.Error("a socket of all addresses was hidden")
	}
}
