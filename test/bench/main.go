// Command bench measures the floor under the supervisor's figures: what the
// kernel and the worker need when nothing is in between.
//
//	bench N WORKER ARG…   with N listening sockets: the median time to spawn the worker with all of them, the same until
//	                      it says READY=1, and of one round trip of all of them by SCM_RIGHTS
//
// It prints three durations in nanoseconds, and the resident memory in KiB of a Go program that has done no more than this.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

const rounds = 7

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: bench N WORKER ARG…")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

func run(count string, worker []string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	var fds []*sys.FD
	defer func() { sys.CloseAll(fds) }()
	for range n {
		fd, err := listen()
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	memory, err := resident()
	if err != nil {
		return err
	}
	var spawns []time.Duration
	ready, err := median(func() (time.Duration, error) {
		spawned, ready, err := spawn(fds, worker)
		spawns = append(spawns, spawned)
		return ready, err
	})
	if err != nil {
		return fmt.Errorf("spawn: %w", err)
	}
	trip, err := median(func() (time.Duration, error) { return roundTrip(fds) })
	if err != nil {
		return fmt.Errorf("round trip: %w", err)
	}
	slices.Sort(spawns)
	fmt.Println(spawns[rounds/2].Nanoseconds(), ready.Nanoseconds(), trip.Nanoseconds(), memory)
	return nil
}

func median(measure func() (time.Duration, error)) (time.Duration, error) {
	var all []time.Duration
	for range rounds {
		d, err := measure()
		if err != nil {
			return 0, err
		}
		all = append(all, d)
	}
	slices.Sort(all)
	return all[rounds/2], nil
}

// resident is the resident memory of this process in KiB.
func resident() (kib int, err error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	_, err = fmt.Sscan(rest, &kib)
	return kib, err
}

func listen() (*sys.FD, error) {
	n, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	fd := sys.NewFD(n)
	if err := syscall.Listen(n, 128); err != nil {
		fd.Close()
		return nil, err
	}
	return fd, nil
}

// spawn starts the worker with the sockets by LISTEN_FDS, waits for READY=1 and ends it. The worker must not mind that there
// is no LISTEN_PID, which only itself can know: nothing stands between the kernel and it.
func spawn(fds []*sys.FD, worker []string) (spawned, ready time.Duration, err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	path, err := exec.LookPath(worker[0])
	if err != nil {
		return 0, 0, err
	}
	socket := filepath.Join(dir, "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: socket})
	if err != nil {
		return 0, 0, err
	}
	defer notify.Close()
	files := []uintptr{0, 1, 2}
	for _, fd := range fds {
		files = append(files, uintptr(fd.Num()))
	}
	env := append(os.Environ(), "LISTEN_FDS="+strconv.Itoa(len(fds)), "NOTIFY_SOCKET="+socket)
	start := time.Now()
	pid, err := syscall.ForkExec(path, worker, &syscall.ProcAttr{Files: files, Env: env})
	if err != nil {
		return 0, 0, err
	}
	spawned = time.Since(start)
	defer func() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	}()
	buf := make([]byte, 4096)
	_ = notify.SetReadDeadline(start.Add(20 * time.Second))
	for {
		got, err := notify.Read(buf)
		if err != nil {
			return 0, 0, err
		}
		if strings.Contains(string(buf[:got]), "READY=1") {
			return spawned, time.Since(start), nil
		}
	}
}

// roundTrip sends all descriptors through a socketpair and back.
func roundTrip(fds []*sys.FD) (time.Duration, error) {
	a, b, err := sys.Socketpair(syscall.SOCK_SEQPACKET)
	if err != nil {
		return 0, err
	}
	defer a.Close()
	defer b.Close()
	start := time.Now()
	for batch := range slices.Chunk(fds, sys.MaxRights-3) {
		received, err := pass(a, b, batch)
		if err != nil {
			return 0, err
		}
		back, err := pass(b, a, received)
		sys.CloseAll(received)
		sys.CloseAll(back)
		if err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

func pass(from, to *sys.FD, fds []*sys.FD) ([]*sys.FD, error) {
	var nums []int
	for _, fd := range fds {
		nums = append(nums, fd.Num())
	}
	if err := sys.SendRights(from, []byte("x"), nums); err != nil {
		return nil, err
	}
	m, err := sys.ReceiveRights(to, make([]byte, 16), false)
	if err == nil && len(m.FDs) != len(fds) {
		sys.CloseAll(m.FDs)
		return nil, errors.New("descriptors were lost")
	}
	return m.FDs, err
}
