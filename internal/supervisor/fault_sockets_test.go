//go:build fault

package supervisor_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/8265a91a/supervisor/internal/control"
)

// killNew is the action that kills the generation, until the daemon has noticed.
func (s *service) killNew(generation int) string {
	return fmt.Sprintf("exec for pid in %s; do kill -9 $pid; while test -e /proc/$pid; do sleep 0.01; done; done", s.processesOf(generation))
}

// The new worker dies when it is known what it listens on: memory and FD store are as they were.
func TestNewWorkerDiesBeforeSwitch(t *testing.T) {
	t.Parallel()
	s := faulty(t, "start-first")
	fetch := "[handoff]\nfetch = \"pidfd\"\n[drain]\nsettle = \"10ms\"\n[[socket]]\nname = \"http\"\nlisten = \"ADDR\"\n"
	s.configure(fetch + fmt.Sprintf("[[socket]]\nname = \"two\"\nlisten = %q\n[[socket]]\nname = \"path\"\nlisten = \"unix:%s/path\"\n", s.other(8081), s.dir))
	s.start()
	s.barrier()
	held, names := s.fds(), s.manager.Names()
	s.configure(fetch)
	s.arguments("-bind=tcp:" + s.other(8082))
	s.arm("before switch", s.killNew(2))
	if message := s.reloadFails(); !strings.Contains(message, "switch failed") {
		t.Error(message)
	}
	if !s.disarm() {
		t.Error("nothing was killed")
	}
	if diff := cmp.Diff(held, s.fds()); diff != "" {
		t.Errorf("held: %s", diff)
	}
	s.barrier()
	if diff := cmp.Diff(names, s.manager.Names()); diff != "" {
		t.Errorf("store: %s", diff)
	}
	for _, addr := range []string{s.addr, s.other(8081)} {
		if answer, err := ask(addr); err != nil || !strings.Contains(answer, "gen=1") {
			t.Errorf("%s: %q, %v", addr, answer, err)
		}
	}
	if conn, err := net.Dial("unix", s.dir+"/path"); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
	if answer, err := ask(s.other(8082)); err == nil {
		t.Errorf("the dead worker's address answers %q", answer)
	}
	s.stop()
}

// The supervisor dies while a worker starts, which then fails: nothing of it stays held.
func TestResumedHandoffFails(t *testing.T) {
	t.Parallel()
	fetch := "[handoff]\nfetch = \"pidfd\"\n[ready]\nwhen = [\"listening\", \"notify\"]\ntimeout = \"1s\"\n[[socket]]\nname = \"http\"\nlisten = \"ADDR\"\n"
	for _, c := range []struct {
		name, point, config, args string
		spoil                     func(s *service, serving int)
	}{
		{"new configuration", "after spawn", "[[socket]]\nname = \"more\"\nlisten = \"OTHER\"\n", "-hang", func(*service, int) {}},
		{"new worker's own socket", "before switch", "", "-bind=tcp:OTHER", func(s *service, serving int) {
			for _, pid := range s.processes() {
				if pid != serving {
					syscall.Kill(pid, syscall.SIGKILL)
				}
			}
			s.eventually(func() string {
				if left := s.processes(); len(left) > 1 {
					return fmt.Sprint("processes: ", left)
				}
				return ""
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := faulty(t, "start-first")
			s.configure(fetch)
			s.start()
			pid, _ := s.settled()
			held := s.fds()
			s.configure(fetch + strings.ReplaceAll(c.config, "OTHER", s.other(8081)))
			s.arguments(strings.ReplaceAll(c.args, "OTHER", s.other(8081)))
			if !s.during(c.point, "kill") {
				t.Fatal("the supervisor was not killed")
			}
			s.ended()
			c.spoil(s, pid)
			s.start()
			s.eventually(func() string {
				if g := s.status().Generations[0]; g.N != 2 || g.State != "gone" {
					return fmt.Sprintf("generation %d is %s", g.N, g.State)
				}
				return ""
			})
			if now, _ := s.settled(); now != pid {
				t.Errorf("pid %d became %d", pid, now)
			}
			if diff := cmp.Diff(held, s.fds(), cmpopts.IgnoreFields(control.Holder{}, "PID")); diff != "" {
				t.Errorf("held: %s", diff)
			}
			if answer, err := ask(s.other(8081)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("the socket of the failed worker: %q, %v", answer, err)
			}
			s.stop()
		})
	}
}

// The supervisor is killed at every point of a reload in which the newcomer binds a UDP socket, which becomes a pair: if that
// generation comes to serve it answers there, and so does the next; if not, nothing of it stays held.
func TestKillSupervisorWhilePairIsMade(t *testing.T) {
	t.Parallel()
	s := faulty(t, "start-first")
	s.configure(s.ownGetsocks() + quickDrain)
	udp := s.other(8081)
	s.arguments("-bind=tcp:" + s.addr)
	s.start()
	s.arguments("-bind=udp:" + udp)
	tally := &tally{t: t}
	for _, point := range s.points() {
		name, first := strings.CutSuffix(point, "#1")
		if !first {
			continue
		}
		s.arguments("-close=" + udp)
		s.reload()
		_, last := s.oneStored(4)
		s.arguments("-bind=udp:" + udp)
		if tally.note(name, s.during(name, "kill")) {
			s.ended()
			s.start()
		}
		now, entries := 0, 4
		s.eventually(func() (problem string) { _, now, problem = s.one(); return problem })
		if now != last {
			entries += 2
		}
		for range 3 {
			pid, _ := s.oneStored(entries)
			answer, err := askUDP(udp)
			if entries == 4 && !errors.Is(err, syscall.ECONNREFUSED) || entries > 4 && !strings.HasPrefix(answer, fmt.Sprintf("pid=%d ", pid)) {
				t.Fatalf("%s: %d entries, pid %d: %q, %v", name, entries, pid, answer, err)
			}
			s.arguments()
			s.reload()
		}
	}
	tally.check()
	s.stop()
}

// oneStored waits until one generation serves, nothing is left of others, and the store has so many entries.
func (s *service) oneStored(entries int) (pid, generation int) {
	s.t.Helper()
	s.eventually(func() (problem string) {
		if pid, generation, problem = s.one(); problem != "" {
			return problem
		}
		s.barrier()
		if names := s.manager.Names(); len(names) != entries {
			return fmt.Sprintf("stored: %q, want %d", names, entries)
		}
		return ""
	})
	return pid, generation
}

// The supervisor dies when what a newcomer bound has become a pair: the next one leaves it steered to the newcomer, with whose
// start it goes on.
func TestPairOfStartingGeneration(t *testing.T) {
	t.Parallel()
	s := faulty(t, "start-first")
	s.configure(s.ownGetsocks() + "[drain]\ndivert = \"steer\"\nsettle = \"10ms\"\ntimeout = \"8s\"\n")
	s.arguments("-bind=tcp:" + s.addr)
	s.start()
	s.arguments("-bind=tcp:" + s.other(8081))
	if !s.during("before switch", "kill") {
		t.Fatal("the supervisor was not killed")
	}
	s.ended()
	s.start()
	for range 20 {
		if answer, err := ask(s.other(8081)); err != nil || !strings.HasSuffix(answer, " gen=2") {
			t.Fatalf("answer %q, %v", answer, err)
		}
	}
	if w := s.warnings("left connections waiting"); len(w) > 0 {
		t.Error(w)
	}
	s.alone()
	s.stop()
}
