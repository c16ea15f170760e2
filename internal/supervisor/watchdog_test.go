package supervisor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// watched is the configuration of a worker with a watchdog, which must be told to keep it content (-watchdog).
func (s *service) watched(interval string) {
	s.t.Helper()
	s.configure(fmt.Sprintf("[worker]\nwatchdog = %q\ncommand = [%q, \"-args\", %q]\n[drain]\nsettle = \"20ms\"\ntimeout = \"300ms\"\nescalate = [\"SIGKILL\"]\n",
		interval, workerProgram, s.argsFile()))
}

// replaced waits until a later generation than n serves.
func (s *service) replaced(n int) {
	s.t.Helper()
	s.eventually(func() string {
		for _, g := range s.status().Generations {
			if g.N > n && g.State == "serving" {
				return ""
			}
		}
		return fmt.Sprintf("generation %d is not replaced", n)
	})
}

// halt stops a process with SIGSTOP, and returns when all its threads have stopped.
func (s *service) halt(pid int) {
	s.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	s.eventually(func() string {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(stats) == 0 {
			return fmt.Sprintf("process %d has no threads: %v", pid, err)
		}
		for _, file := range stats {
			if data, err := os.ReadFile(file); err != nil || !strings.Contains(string(data), ") T ") {
				return fmt.Sprintf("%s: %s, %v", file, data, err)
			}
		}
		return ""
	})
}

// A worker whose WATCHDOG=1 stops coming is replaced; one that never began is too.
func TestWorkerWatchdog(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.watched("300ms")
	s.start()
	load := s.load()
	s.replaced(1)
	if len(s.warnings("WATCHDOG=1")) == 0 {
		t.Error("nobody says why")
	}
	load.end()
	s.stop()
}

// A replacement that fails is tried again for as long as the worker hangs.
func TestWatchdogReloadFails(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.watched("300ms")
	s.start()
	load := s.load()
	s.arguments("-exit=3")
	s.eventually(func() string {
		if n := len(s.warnings("generation 1", "sent no WATCHDOG=1")); n < 3 {
			return fmt.Sprintf("its replacement was tried %d times", n)
		}
		return ""
	})
	s.arguments()
	s.replaced(1)
	load.end()
	s.stop()
}

// A worker that hangs in the middle of everything is replaced, and killed, since it does not stop: under the supervisor
// that started it, and under one that adopted it hanging.
func TestWatchdogStopped(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		adopt func(s *service)
	}{
		{"started", func(*service) {}},
		{"adopted", func(s *service) { s.kill(); s.start() }},
		{"reexec", func(s *service) { s.reexeced() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, "")
			s.watched("3s")
			s.arguments("-watchdog")
			s.start()
			load := s.load()
			pid, n := s.settled()
			s.halt(pid)
			c.adopt(s)
			s.replaced(n)
			s.settled()
			load.endAfter(1)
			for _, g := range s.status().Generations {
				if g.N == n && !strings.Contains(g.Exit, "SIGKILL") {
					t.Errorf("the stopped worker: %q", g.Exit)
				}
			}
			if len(s.warnings("generation 1", "sent no WATCHDOG=1")) != 1 {
				t.Errorf("warnings: %q", s.warnings())
			}
			s.stop()
		})
	}
}
