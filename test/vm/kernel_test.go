//go:build vm

package vm

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/test/load"
)

// A supervisor that hangs is killed by systemd's watchdog, and the next one adopts the worker.
var _ = scenario("s-watchdog", func(t *testing.T, m *Machine) {
	s := m.service("hang", quickWorker("hang", "start-first", 7210), "[Service]\nWatchdogSec=2\n")
	s.arguments()
	s.start()
	before, cursor := s.view(), s.Cursor()
	s.underLoad("s supervisor hangs, watchdog", tcp(7210), allKinds, func() {
		s.Kill(before.main, syscall.SIGSTOP)
		s.Eventually(60*time.Second, func() string {
			if now := s.view(); now.main == before.main || now.quiet(before.stored) != "" {
				return fmt.Sprintf("supervisor %d, before %d: %s", now.main, before.main, now.quiet(before.stored))
			}
			return ""
		})
	})
	if said := s.JournalAfter(s.unit, cursor); !strings.Contains(said, "Watchdog timeout") {
		t.Errorf("systemd does not say that the watchdog has expired:\n%s", said)
	}
	if g := s.view().serving(); g.PID != before.serving().PID || !g.Adopted {
		t.Errorf("worker %d serves, adopted %v; before %d", g.PID, g.Adopted, before.serving().PID)
	}
	s.reload()
})

// A worker at which a client throws more than the unit's memory is killed by the kernel, alone.
var _ = scenario("s-oom", func(t *testing.T, m *Machine) {
	if !strings.Contains(m.ReadFile("/sys/fs/cgroup/cgroup.controllers"), "memory") {
		t.Skip("no memory controller here; the virtual machine has one")
	}
	s := m.service("oom", quickWorker("oom", "start-first", 7220), "[Service]\nMemoryMax=96M\nMemorySwapMax=0\n")
	s.arguments()
	s.start()
	before := s.view()
	result := m.whileLoaded(load.Options{Target: tcp(7220), Pause: 2 * time.Millisecond, Clients: map[load.Class]int{load.New: 2}}, func() {
		conn, err := m.Dial(context.Background(), "tcp", "127.0.0.1:7220")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(3 * time.Minute))
		// The worker reads a line of any length.
		_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nX: ")
		for megabyte := strings.Repeat("x", 1<<20); err == nil; {
			_, err = io.WriteString(conn, megabyte)
		}
		t.Logf("the greedy request ended: %v", err)
		s.Eventually(30*time.Second, func() string {
			if pid, text := s.Worker("127.0.0.1:7220"); pid == 0 || pid == before.serving().PID {
				return "no other worker answers: " + text
			}
			return ""
		})
	})
	m.report("s worker killed for its memory", result)
	if n := result.Failures(); n > 2 || n > cut(result) {
		t.Errorf("more failed than the worker had accepted:\n%s", result)
	}
	events := m.ReadFile("/sys/fs/cgroup" + s.Property(s.unit, "ControlGroup") + "/memory.events")
	if !regexp.MustCompile(`(?m)^oom_kill [1-9]`).MatchString(events) {
		t.Errorf("the kernel has killed nothing for its memory:\n%s", events)
	}
	var dead control.Generation
	s.Eventually(30*time.Second, func() string {
		v := s.view()
		for _, g := range v.status.Generations {
			if g.N == before.serving().N {
				dead = g
			}
		}
		return v.quiet(before.stored)
	})
	if now := s.view(); now.main != before.main || !strings.Contains(dead.Exit, "SIGKILL") {
		t.Errorf("supervisor %d, before %d; the worker ended so: %q", now.main, before.main, dead.Exit)
	}
	s.reload()
})
