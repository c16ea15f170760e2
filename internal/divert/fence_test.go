package divert_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/divert"
	"github.com/8265a91a/supervisor/internal/sys"
)

// settled asks until only letter has answered for a while; the deadline fails the test.
func settled(t *testing.T, network, address, letter string) {
	t.Helper()
	for run, deadline := 0, time.Now().Add(10*time.Second); run < 100; {
		got, err := ask(network, address)
		if err != nil {
			t.Fatal(err)
		}
		if run++; got != letter {
			run = 0
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s still answers", got)
		}
	}
}

func fence(t testing.TB, s sys.Socket, pids ...int) *divert.Fenced {
	t.Helper()
	f, left := divert.Fence(pids, []uint64{s.Inode})
	t.Cleanup(f.Close)
	if len(left) > 0 {
		t.Fatal(left)
	}
	return f
}

// TestFence lets two processes serve one socket under load and takes it from one of them, whose answers end.
func TestFence(t *testing.T) {
	for _, role := range []string{"serve", "epoll"} {
		for _, network := range []string{"tcp", "unix"} {
			t.Run(role+" "+network, func(t *testing.T) {
				spec := sys.ListenSpec{Network: network, Host: "127.0.0.1"}
				if network == "unix" {
					spec = sys.ListenSpec{Network: network, Path: filepath.Join(t.TempDir(), "s")}
				}
				a := open(t, spec)
				s := inspect(t, a)
				worker := spawn(t, role, 0, a)
				worker.await(t)
				expect(t, s.Network, s.Address, "C", 20)
				stop := load(s.Network, s.Address, 3)
				sideA := serve(t, a, "A")
				for range 5 {
					f := fence(t, s, worker.pid)
					if role == "epoll" && f.Entries() < 10 {
						t.Errorf("%d entries taken out, want the worker's many", f.Entries())
					}
					settled(t, s.Network, s.Address, "A")
					expect(t, s.Network, s.Address, "A", 200)
					if err := f.Undo(); err != nil {
						t.Fatal(err)
					}
				}
				sideA.stop()
				settled(t, s.Network, s.Address, "C")
				requests, failures := stop()
				if len(failures) > 0 {
					t.Errorf("%d of %d failed, first: %v", len(failures), requests, failures[0])
				}
			})
		}
	}
}

// TestFencedBacklogWaits has nobody else to serve: connections wait, and the undo wakes the worker for them.
func TestFencedBacklogWaits(t *testing.T) {
	a := open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	s := inspect(t, a)
	worker := spawn(t, "serve", 0, a)
	worker.await(t)
	expect(t, "tcp", s.Address, "C", 5)
	f := fence(t, s, worker.pid)
	answer := make(chan string, 1)
	go func() {
		got, _ := ask("tcp", s.Address)
		answer <- got
	}()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if used, _, err := divert.Queue(a.Num()); err != nil || time.Now().After(deadline) {
			t.Fatalf("the connection did not stay in the backlog: %d, %v", used, err)
		} else if used == 1 {
			break
		}
	}
	if err := f.Undo(); err != nil {
		t.Fatal(err)
	}
	if got := <-answer; got != "C" {
		t.Errorf("answered by %q", got)
	}
}

func TestFenceRefuses(t *testing.T) {
	a := open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	s := inspect(t, a)
	blocked := spawn(t, "accept", 0, a)
	blocked.await(t)
	refused := func(pids ...int) bool {
		f, left := divert.Fence(pids, []uint64{s.Inode})
		defer f.Close()
		return f.Entries() == 0 && errors.Is(left[s.Inode], divert.ErrNotEpoll)
	}
	if !refused(blocked.pid) {
		t.Error("a worker in accept was fenced")
	}
	expect(t, "tcp", s.Address, "C", 5)

	// Half of this worker could be fenced: it gets everything back.
	polling := spawn(t, "serve", 0, a)
	polling.await(t)
	if !refused(polling.pid, blocked.pid) {
		t.Error("a worker of two minds was fenced")
	}
	blocked.kill()
	expect(t, "tcp", s.Address, "C", 20)
	f, left := divert.Fence([]int{blocked.pid}, []uint64{s.Inode})
	if len(left) > 0 || f.Entries() != 0 {
		t.Errorf("a process that is gone: %v", left)
	}
}

// TestFenceIsPerListener has one listener that cannot be taken from the worker beside two that can.
func TestFenceIsPerListener(t *testing.T) {
	var inodes []uint64
	var pids []int
	var addresses []string
	for _, role := range []string{"serve", "accept", "epoll"} {
		fd := open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
		s := inspect(t, fd)
		worker := spawn(t, role, 0, fd)
		worker.await(t)
		expect(t, "tcp", s.Address, "C", 5)
		inodes, pids, addresses = append(inodes, s.Inode), append(pids, worker.pid), append(addresses, s.Address)
		if role != "accept" {
			serve(t, fd, "A")
		}
	}
	f, left := divert.Fence(pids, inodes)
	defer f.Close()
	if len(left) != 1 || !errors.Is(left[inodes[1]], divert.ErrNotEpoll) {
		t.Errorf("left: %v", left)
	}
	settled(t, "tcp", addresses[0], "A")
	expect(t, "tcp", addresses[1], "C", 20)
	settled(t, "tcp", addresses[2], "A")
	if err := f.Undo(); err != nil {
		t.Error(err)
	}
}

func TestFenceWithoutPermission(t *testing.T) {
	a := open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	worker := spawn(t, "serve", 0, a)
	worker.await(t)
	out, err := spawn(t, "fence", 65534, a, worker.pidfd(t)).output()
	if err != nil {
		t.Errorf("%q, %v", out, err)
	}
}

func BenchmarkFence(b *testing.B) {
	a := open(b, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	s := inspect(b, a)
	worker := spawn(b, "serve", 0, a)
	worker.await(b)
	for b.Loop() {
		if err := fence(b, s, worker.pid).Undo(); err != nil {
			b.Fatal(err)
		}
	}
}
