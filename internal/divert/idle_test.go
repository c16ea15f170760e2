package divert_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/8265a91a/supervisor/internal/divert"
	"github.com/8265a91a/supervisor/internal/sys"
)

// hold connects and waits until the worker has the connection.
func hold(t testing.TB, network, address string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConnections(t *testing.T) {
	no := false
	path := filepath.Join(t.TempDir(), "s")
	for name, test := range map[string]struct {
		spec   sys.ListenSpec
		client string
	}{
		"tcp4":          {sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"}, "127.0.0.1"},
		"tcp6":          {sys.ListenSpec{Network: "tcp", Host: "::1"}, "::1"},
		"dual":          {sys.ListenSpec{Network: "tcp", Host: "::", V6Only: &no}, "127.0.0.1"},
		"unix":          {sys.ListenSpec{Network: "unix", Path: path}, ""},
		"unix abstract": {sys.ListenSpec{Network: "unix", Path: "@" + path}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := open(t, test.spec)
			s := inspect(t, a)
			address := s.Address
			if test.client != "" {
				address = net.JoinHostPort(test.client, strconv.Itoa(s.Port))
			}
			worker := spawn(t, "hold", 0, a)
			worker.await(t)
			count := func() (int, error) { return divert.Connections([]int{worker.pid}, []sys.Socket{s}) }
			var open []net.Conn
			for want := range 4 {
				if n, err := count(); n != want || err != nil {
					t.Fatalf("counted %d (%v), want %d", n, err, want)
				}
				open = append(open, hold(t, s.Network, address))
			}
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
			defer cancel()
			if err := divert.WaitIdle(ctx, count); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("with open connections: %v", err)
			}
			for _, c := range open {
				c.Close()
			}
			ctx, cancel = context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := divert.WaitIdle(ctx, count); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestConnectionsAreTheWorkers does not count what waits in the queue or what another process has accepted.
func TestConnectionsAreTheWorkers(t *testing.T) {
	a := open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	s := inspect(t, a)
	sleeper, worker := spawn(t, "wait", 0, a), spawn(t, "hold", 0, a)
	sleeper.await(t)
	worker.await(t)
	hold(t, "tcp", s.Address)
	if n, err := divert.Connections([]int{sleeper.pid}, []sys.Socket{s}); n != 0 || err != nil {
		t.Errorf("counted %d (%v) for a process that accepted nothing", n, err)
	}
	worker.kill()
	if n, err := divert.Connections([]int{worker.pid}, []sys.Socket{s}); n != 0 || err != nil {
		t.Errorf("counted %d (%v) for a process that is gone", n, err)
	}
	c, err := net.Dial("tcp", s.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := divert.Connections([]int{sleeper.pid}, []sys.Socket{s}); n != 0 || err != nil {
		t.Errorf("counted %d (%v) with one in the queue", n, err)
	}
}

// TestHalfOpen has clients wait with their first byte, at one of two sockets of one port.
func TestHalfOpen(t *testing.T) {
	no := false
	for name, hosts := range map[string][3]string{
		"tcp4": {"127.0.0.1", "127.0.0.1", "127.0.0.2"}, "tcp6": {"::1", "::1", "127.0.0.1"}, "dual": {"::", "127.0.0.1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := open(t, sys.ListenSpec{Network: "tcp", Host: hosts[0], V6Only: &no, DeferAccept: 60})
			s := inspect(t, a)
			dial := func(host string) net.Conn {
				c, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(s.Port)))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				return c
			}
			halfOpen := func() map[uint64]bool {
				found, err := divert.HalfOpen([]sys.Socket{s, {Network: "unix", Address: "/x"}})
				if err != nil {
					t.Fatal(err)
				}
				return found
			}
			if hosts[2] != "" { // a neighbour, whose clients are not ours
				open(t, sys.ListenSpec{Network: "tcp", Host: hosts[2], Port: uint32(s.Port), DeferAccept: 60})
				dial(hosts[2])
			}
			first := dial(hosts[1])
			before := halfOpen()
			if len(before) != 1 {
				t.Fatalf("%d half-open, want 1", len(before))
			}
			dial(hosts[1])
			if _, err := first.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			after := halfOpen()
			for id := range before {
				if after[id] || len(after) != 1 {
					t.Errorf("half-open: %v, before the client wrote %v", after, before)
				}
			}
			if used, _, err := divert.Queue(a.Num()); used != 1 || err != nil {
				t.Errorf("queue %d, %v; want 1", used, err)
			}
		})
	}
}

func TestWaitIdleBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, asked := time.Now(), 0
		err := divert.WaitIdle(context.Background(), func() (int, error) {
			asked++
			return 10 - asked, nil
		})
		// 10, 20, 40, 80, 160, 200, 200, 200, 200 ms
		if took := time.Since(start); err != nil || asked != 10 || took != 1110*time.Millisecond {
			t.Errorf("asked %d times in %v: %v", asked, took, err)
		}
	})
}

// BenchmarkConnections counts 1,000 connections of a worker.
func BenchmarkConnections(b *testing.B) {
	a := open(b, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1", Backlog: 1024})
	s := inspect(b, a)
	worker := spawn(b, "hold", 0, a)
	worker.await(b)
	for range 1000 {
		hold(b, "tcp", s.Address)
	}
	for b.Loop() {
		if n, err := divert.Connections([]int{worker.pid}, []sys.Socket{s}); n != 1000 || err != nil {
			b.Fatal(n, err)
		}
	}
}
