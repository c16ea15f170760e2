package divert_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/divert"
	"github.com/8265a91a/supervisor/internal/leaktest"
	"github.com/8265a91a/supervisor/internal/sys"
)

func TestMain(m *testing.M) {
	if role := os.Getenv("DIVERT_TEST_ROLE"); role != "" {
		os.Exit(child(role))
	}
	os.Exit(leaktest.Main(m))
}

// families are the kinds of sockets that can be steered, each with the addresses by which it is reached.
func families() map[string]struct {
	spec    sys.ListenSpec
	clients []string
} {
	no, yes := false, true
	type f = struct {
		spec    sys.ListenSpec
		clients []string
	}
	return map[string]f{
		"tcp4":      {sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"}, []string{"127.0.0.1"}},
		"tcp4 any":  {sys.ListenSpec{Network: "tcp", Host: "0.0.0.0"}, []string{"127.0.0.1", "127.0.0.2"}},
		"tcp6":      {sys.ListenSpec{Network: "tcp", Host: "::1", V6Only: &yes}, []string{"::1"}},
		"tcp dual":  {sys.ListenSpec{Network: "tcp", Host: "::", V6Only: &no}, []string{"::1", "127.0.0.1"}},
		"tcp early": {sys.ListenSpec{Network: "tcp", Host: "127.0.0.1", ReusePort: true}, []string{"127.0.0.1"}},
		"udp4":      {sys.ListenSpec{Network: "udp", Host: "127.0.0.1"}, []string{"127.0.0.1"}},
		"udp dual":  {sys.ListenSpec{Network: "udp", Host: "::", V6Only: &no}, []string{"::1", "127.0.0.1"}},
		"udp early": {sys.ListenSpec{Network: "udp", Host: "127.0.0.1", ReusePort: true}, []string{"127.0.0.1"}},
	}
}

func TestSteerUnderLoad(t *testing.T) {
	for name, f := range families() {
		t.Run(name, func(t *testing.T) {
			a := open(t, f.spec)
			sa := inspect(t, a)
			sideA := serve(t, a, "A")
			stops := map[string]func() (int64, []error){}
			address := func(host string) string { return net.JoinHostPort(host, strconv.Itoa(sa.Port)) }
			for _, host := range f.clients {
				stops[host] = load(sa.Network, address(host), 2)
			}
			b := join(t, a)
			sideB := serve(t, b, "B")
			for range 20 {
				for slot, to := range []string{"A", "B"} {
					if err := divert.Steer(a.Num(), slot); err != nil {
						t.Fatal(err)
					}
					for _, host := range f.clients {
						expect(t, sa.Network, address(host), to, 10)
					}
				}
			}
			for host, stop := range stops {
				requests, failures := stop()
				if len(failures) > 0 {
					t.Errorf("%s: %d of %d requests failed, first: %v", host, len(failures), requests, failures[0])
				}
				t.Logf("%s: %d requests, A served %d, B %d", host, requests, sideA.served.Load(), sideB.served.Load())
			}
		})
	}
}

// TestSlotsSurvivePassing sends B away, closes it here, takes it back and checks that it still has slot 1; the process
// that served B meanwhile is killed.
func TestSlotsSurvivePassing(t *testing.T) {
	a := open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	address := inspect(t, a).Address
	b := join(t, a)
	left, right, err := sys.Socketpair(syscall.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	defer left.Close()
	defer right.Close()
	if err := sys.SendRights(left, []byte("B"), []int{b.Num()}); err != nil {
		t.Fatal(err)
	}
	worker := spawn(t, "serve", 0, b)
	b.Close()
	serve(t, a, "A")
	if err := divert.Steer(a.Num(), divert.SlotB); err != nil {
		t.Fatal(err)
	}
	expect(t, "tcp", address, "C", 20)
	worker.kill()
	waiting := make(chan error, 1)
	go func() {
		got, err := ask("tcp", address)
		if err == nil && got != "B" {
			err = fmt.Errorf("answered by %s", got)
		}
		waiting <- err
	}()
	m, err := sys.ReceiveRights(right, make([]byte, 8), false)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.CloseAll(m.FDs)
	serve(t, m.FDs[0], "B")
	if err := <-waiting; err != nil {
		t.Errorf("request that waited while B had no worker: %v", err)
	}
	expect(t, "tcp", address, "B", 20)
	if err := divert.Steer(m.FDs[0].Num(), divert.SlotA); err != nil {
		t.Fatal(err)
	}
	expect(t, "tcp", address, "A", 20)
}

// TestClosingMovesSlots is the reason why a pair is permanent.
func TestClosingMovesSlots(t *testing.T) {
	a := open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	address := inspect(t, a).Address
	b := join(t, a)
	serve(t, b, "B")
	a.Close()
	for _, slot := range []int{divert.SlotA, divert.SlotB} {
		if err := divert.Steer(b.Num(), slot); err != nil {
			t.Fatal(err)
		}
		expect(t, "tcp", address, "B", 20)
	}
	serve(t, join(t, b), "C")
	expect(t, "tcp", address, "B", 20)
	if err := divert.Steer(b.Num(), divert.SlotB); err != nil {
		t.Fatal(err)
	}
	expect(t, "tcp", address, "C", 20)
}

func TestQuiet(t *testing.T) {
	a := open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	c, err := net.Dial("tcp", inspect(t, a).Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := divert.Quiet(ctx, a.Num(), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a connection in the queue: %v", err)
	}
	if used, _, err := divert.Queue(a.Num()); used != 1 || err != nil {
		t.Errorf("queue %d, %v; want 1", used, err)
	}
	side := serve(t, a, "A")
	start := time.Now()
	if err := divert.Quiet(context.Background(), a.Num(), 30*time.Millisecond); err != nil || time.Since(start) < 30*time.Millisecond {
		t.Errorf("quiet after %v: %v", time.Since(start), err)
	}
	if side.served.Load() != 1 {
		t.Errorf("served %d", side.served.Load())
	}
}

func BenchmarkSteer(b *testing.B) {
	a := open(b, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	join(b, a)
	for i := 0; b.Loop(); i++ {
		if err := divert.Steer(a.Num(), i&1); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJoin(b *testing.B) {
	a := open(b, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	for b.Loop() {
		fd, err := divert.Join(a.Num())
		if err != nil {
			b.Fatal(err)
		}
		fd.Close()
	}
}

// A listener that is hidden gives out what had arrived and gets nothing more, whoever else is bound to its address, in its
// group or not.
func TestHide(t *testing.T) {
	for name, c := range map[string]struct {
		pair  bool
		place int // of the one that is hidden
		other bool
	}{
		"nobody else":       {},
		"another":           {other: true},
		"first of a pair":   {pair: true, other: true},
		"second of a pair":  {pair: true, place: 1, other: true},
		"pair, nobody else": {pair: true},
	} {
		t.Run(name, func(t *testing.T) {
			spec := sys.ListenSpec{Network: "tcp", Host: "127.0.0.1", ReusePort: true}
			hidden := open(t, spec)
			s := inspect(t, hidden)
			spec.Port = uint32(s.Port)
			partner, half := (*sys.FD)(nil), s.Inode // half is that of the second one
			if c.pair {
				partner = join(t, hidden)
				half = inspect(t, partner).Inode
				if c.place == 1 {
					hidden, partner = partner, hidden
				}
				if err := divert.Steer(hidden.Num(), c.place); err != nil {
					t.Fatal(err)
				}
			}
			early, err := net.Dial("tcp", s.Address)
			if err != nil {
				t.Fatal(err)
			}
			defer early.Close()
			var other *sys.FD
			if c.other {
				other = open(t, spec)
			}
			var second uint64
			if partner != nil {
				second = inspect(t, partner).Inode
			}
			if is := divert.Replaced(s, half); is != c.other {
				t.Errorf("replaced: %v", is)
			}
			partner.Close()
			if err := divert.Hide(hidden.Num(), c.place, second); err != nil {
				t.Fatal(err)
			}
			for range 20 {
				conn, err := net.DialTimeout("tcp", s.Address, 500*time.Millisecond) // before a SYN is sent again
				if err == nil {
					defer conn.Close()
				}
				if c.other != (err == nil) || err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
					t.Fatalf("a connection: %v", err)
				}
			}
			if used, _, err := divert.Queue(hidden.Num()); used != 1 || err != nil {
				t.Errorf("the hidden one has %d, %v", used, err)
			}
			if !c.other {
				return
			}
			if used, _, err := divert.Queue(other.Num()); used != 20 || err != nil {
				t.Errorf("the other has %d, %v", used, err)
			}
			hidden.Close()
			for range 20 {
				conn, err := net.DialTimeout("tcp", s.Address, 500*time.Millisecond)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
			}
		})
	}
}
