// Package leaktest runs a package's tests and fails the run if they leave
// descriptors, goroutines or child processes behind.
//
//	func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }
//
// What was there before the first test is the measure; only what is new at the
// end is reported, after a short grace in which runtime helpers may end.
package leaktest

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// grace bounds the wait for goroutines and processes that are already on their way out.
const grace = 3 * time.Second

// Main runs m and returns its exit code, or 1 with a list on stderr if the tests leaked.
func Main(m *testing.M) int {
	before := descriptors()
	code := m.Run()
	if code != 0 {
		return code
	}
	leaks := settle(func() []string {
		return append(append(newDescriptors(before), goroutines()...), children()...)
	})
	for _, l := range leaks {
		fmt.Fprintln(os.Stderr, "leaktest: left behind:", l)
	}
	if len(leaks) > 0 {
		return 1
	}
	return code
}

// settle polls until find reports nothing or the grace is over, and returns the last report.
func settle(find func() []string) []string {
	deadline := time.Now().Add(grace)
	for {
		leaks := find()
		if len(leaks) == 0 || time.Now().After(deadline) {
			return leaks
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func descriptors() map[string]string {
	open := map[string]string{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return open
	}
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open[e.Name()] = target
		}
	}
	return open
}

func newDescriptors(before map[string]string) []string {
	var leaks []string
	// The runtime opens its poller, its cgroup files and a random source when first needed, and keeps them.
	runtimes := map[string]int{"anon_inode:[eventpoll]": 1, "anon_inode:[eventfd]": 1, "/dev/urandom": 1}
	for _, target := range before {
		runtimes[target]--
	}
	for fd, target := range descriptors() {
		if before[fd] == target || strings.HasPrefix(target, "/sys/fs/cgroup/") ||
			strings.Contains(target, "/_testmain") || strings.Contains(target, "testlog") || strings.HasSuffix(target, ".out") {
			continue
		}
		if runtimes[target]--; runtimes[target] >= 0 {
			continue
		}
		leaks = append(leaks, "descriptor "+fd+" -> "+target)
	}
	return leaks
}

func goroutines() []string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var leaks []string
	for i, g := range strings.Split(string(buf), "\n\n") {
		// The first one is this goroutine; testing's own and the signal loop never end.
		if i == 0 || strings.Contains(g, "testing.(*M)") || strings.Contains(g, "testing.runFuzz") || strings.Contains(g, "os/signal.loop") ||
			strings.Contains(g, "os/signal.signal_recv") || strings.Contains(g, "internal/fuzz") || strings.TrimSpace(g) == "" {
			continue
		}
		leaks = append(leaks, g)
	}
	return leaks
}

func children() []string {
	self := os.Getpid()
	var leaks []string
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// The command in parentheses may hold anything, so the fields are counted from its end.
		rest := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(rest) > 1 && rest[1] == strconv.Itoa(self) {
			cmd, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
			leaks = append(leaks, fmt.Sprintf("process %d in state %s: %s", pid, rest[0], strings.ReplaceAll(string(cmd), "\x00", " ")))
		}
	}
	return leaks
}
