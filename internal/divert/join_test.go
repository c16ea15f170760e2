package divert_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/divert"
	"github.com/8265a91a/supervisor/internal/sys"
)

// TestJoinGivesNothingToB joins again and again under load: nothing may reach B before it is steered there.
func TestJoinGivesNothingToB(t *testing.T) {
	for _, early := range []bool{false, true} {
		t.Run(fmt.Sprintf("reuseport=%v", early), func(t *testing.T) {
			var slow, requests int64
			for range 30 {
				a := open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1", ReusePort: early})
				address := inspect(t, a).Address
				sideA := serve(t, a, "A")
				stop := load("tcp", address, 6)
				for deadline := time.Now().Add(5 * time.Second); sideA.served.Load() < 50 && time.Now().Before(deadline); {
					time.Sleep(time.Millisecond)
				}
				start := time.Now()
				b := join(t, a)
				n, failures := stop()
				if time.Since(start) > 900*time.Millisecond {
					slow++
				}
				requests += n
				if len(failures) > 0 {
					t.Fatalf("%d of %d failed, first: %v", len(failures), n, failures[0])
				}
				if used, _, err := divert.Queue(b.Num()); err != nil || used != 0 {
					t.Fatalf("B has %d connections in its queue (%v), want none", used, err)
				}
				sideA.stop()
				b.Close()
				a.Close()
			}
			t.Logf("%d requests over 30 joins; in %d of them a client had to send its SYN again", requests, slow)
		})
	}
}

func TestJoinCopies(t *testing.T) {
	no := false
	a := open(t, sys.ListenSpec{Network: "tcp", Host: "::", V6Only: &no, FreeBind: true, DeferAccept: 3, Backlog: 77})
	if err := sys.SetNonblock(a.Num(), true); err != nil {
		t.Fatal(err)
	}
	for _, o := range [][3]int{{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1}, {syscall.SOL_SOCKET, syscall.SO_RCVBUF, 70000},
		{syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1}, {syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 33},
		{syscall.IPPROTO_IP, syscall.IP_TOS, 0x10}, {syscall.SOL_SOCKET, syscall.SO_PRIORITY, 3}, {syscall.IPPROTO_TCP, 23 /* TCP_FASTOPEN */, 9}} {
		if err := syscall.SetsockoptInt(a.Num(), o[0], o[1], o[2]); err != nil {
			t.Fatal(o, err)
		}
	}
	b := join(t, a)
	for _, o := range [][2]int{{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE}, {syscall.SOL_SOCKET, syscall.SO_RCVBUF},
		{syscall.SOL_SOCKET, syscall.SO_REUSEADDR}, {syscall.IPPROTO_TCP, syscall.TCP_NODELAY}, {syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE},
		{syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT}, {syscall.IPPROTO_IP, syscall.IP_TOS},
		{syscall.SOL_SOCKET, syscall.SO_PRIORITY}, {syscall.IPPROTO_TCP, 23}} {
		va, errA := syscall.GetsockoptInt(a.Num(), o[0], o[1])
		vb, errB := syscall.GetsockoptInt(b.Num(), o[0], o[1])
		if va != vb || va == 0 || errA != nil || errB != nil {
			t.Errorf("option %v: %d (%v) on A, %d (%v) on B", o, va, errA, vb, errB)
		}
	}
	sa, sb := inspect(t, a), inspect(t, b)
	sb.Cookie, sb.Inode = sa.Cookie, sa.Inode
	if sa != sb {
		t.Errorf("A %+v\nB %+v", sa, sb)
	}
	if _, limit, _ := divert.Queue(b.Num()); limit != 77 {
		t.Errorf("backlog of B is %d, want 77", limit)
	}
}

func TestJoinRefuses(t *testing.T) {
	dir := t.TempDir()
	yes := true
	shared := open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1", ReusePort: true})
	open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1", Port: uint32(inspect(t, shared).Port), ReusePort: true})
	tests := map[string]struct {
		fd   *sys.FD
		want error
	}{
		"unix":          {open(t, sys.ListenSpec{Network: "unix", Path: dir + "/s"}), divert.ErrUnsupported},
		"second socket": {shared, divert.ErrShared},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := divert.Join(test.fd.Num()); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
	// The other family at the same port is no member of the group.
	a := open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	open(t, sys.ListenSpec{Network: "tcp", Host: "::1", Port: uint32(inspect(t, a).Port), V6Only: &yes})
	join(t, a)
	if err := divert.Steer(open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"}).Num(), divert.SlotB); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("steering half of no pair: %v", err)
	}
}

func TestJoinTwiceIsRefused(t *testing.T) {
	a := open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	join(t, a)
	if _, err := divert.Join(a.Num()); !errors.Is(err, divert.ErrShared) {
		t.Errorf("got %v, want ErrShared", err)
	}
}

// TestFailedJoinLeavesA checks that a socket that cannot be joined keeps its options.
func TestFailedJoinLeavesA(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	a := open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	out, err := spawn(t, "join", 65534, a).output()
	if err != nil || !strings.Contains(out, "other owner") {
		t.Errorf("child of another uid: %q, %v", out, err)
	}
	if inspect(t, a).ReusePort {
		t.Error("SO_REUSEPORT was left set")
	}
}

func TestRootJoinsSocketsOfOthers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	a := received(t, spawn(t, "bind", 65534))
	if uid, err := sys.SocketOwner(a.Num()); uid != 65534 || err != nil {
		t.Fatalf("owner %d, %v", uid, err)
	}
	address := inspect(t, a).Address
	serve(t, a, "A")
	serve(t, join(t, a), "B")
	expect(t, "tcp", address, "A", 20)
	if err := divert.Steer(a.Num(), divert.SlotB); err != nil {
		t.Fatal(err)
	}
	expect(t, "tcp", address, "B", 20)
}

// A server may bind a socket for each of its peers to the same address and connect it, as HAProxy does for QUIC: these are
// members of the group, too.
func TestJoinBesideConnectedSockets(t *testing.T) {
	spec := sys.ListenSpec{Network: "udp", Host: "127.0.0.1", ReusePort: true}
	a := open(t, spec)
	address := inspect(t, a).Address
	spec.Port = uint32(inspect(t, a).Port)
	connected := func() *sys.FD {
		t.Helper()
		peer := inspect(t, open(t, sys.ListenSpec{Network: "udp", Host: "127.0.0.1"}))
		fd := open(t, spec)
		if err := syscall.Connect(fd.Num(), &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: peer.Port}); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	serve(t, a, "A")
	before := connected()
	if _, err := divert.Join(a.Num()); !errors.Is(err, divert.ErrShared) {
		t.Errorf("beside a connected socket: %v, want ErrShared", err)
	}
	expect(t, "udp", address, "A", 10)
	before.Close()
	b := join(t, a)
	serve(t, b, "B")
	first, second := connected(), connected()
	for _, end := range []*sys.FD{nil, first, second} {
		end.Close()
		for slot, to := range []string{"A", "B"} {
			if err := divert.Steer(a.Num(), slot); err != nil {
				t.Fatal(err)
			}
			expect(t, "udp", address, to, 10)
		}
	}
}
