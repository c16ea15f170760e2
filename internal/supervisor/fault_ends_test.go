//go:build fault

package supervisor_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// killedAt begins something in the course of which the supervisor must be killed at a point.
func (s *service) killedAt(point string, begin func()) {
	s.t.Helper()
	s.arm(point, "kill")
	begin()
	if exit := s.ended(); exit.Signal != syscall.SIGKILL || !s.disarm() {
		s.t.Fatalf("%s: the daemon ended with %+v", point, exit)
	}
}

// The supervisor that goes on with a handoff is killed where the last one was, too.
func TestKillSupervisorTwice(t *testing.T) {
	t.Parallel()
	for _, order := range orders {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			s := faulty(t, order)
			s.start()
			load := s.load()
			_, n := s.settled()
			s.killedAt("before ready", func() { s.try(true) })
			s.killedAt("before ready", s.launch)
			s.start()
			if _, now := s.settled(); now != n+1 {
				t.Errorf("generation %d serves, not %d", now, n+1)
			}
			s.reload()
			s.settled()
			load.end()
			s.stop()
		})
	}
}

// The supervisor is killed where no handoff is under way: when it has adopted what there is, right before it becomes
// another binary, and in the middle of a stop.
func TestKillSupervisorBetweenHandoffs(t *testing.T) {
	t.Parallel()
	s := faulty(t, "start-first")
	s.start()
	load := s.load()
	pid, n := s.settled()
	same := func(point string) {
		t.Helper()
		s.start()
		if newPID, newN := s.settled(); newPID != pid || newN != n {
			t.Errorf("%s: generation %d (pid %d) became %d (pid %d)", point, n, pid, newN, newPID)
		}
		s.reload()
		pid, n = s.settled()
	}
	s.kill()
	s.killedAt("adopted", s.launch)
	same("adopted")
	s.killedAt("before exec", func() {
		if r := s.reexec(); !r.OK {
			t.Fatal(r.Error)
		}
	})
	same("before exec")
	load.end()

	s.killedAt("stopping", func() { s.signal(syscall.SIGTERM) })
	s.start()
	if _, now := s.serving(); now != n+1 {
		t.Errorf("generation %d serves after the stop, not %d", now, n+1)
	}
	load = s.load()
	for range 3 { // as long as the one that was to stop lives, the new socket is no pair
		s.reload()
	}
	s.settled()
	load.end()
	s.stop()
}

// The supervisor is killed while a reload replaces the bundle: no socket is lost, and one bundle is left.
func TestKillSupervisorWhileBundling(t *testing.T) {
	t.Parallel()
	s := faulty(t, "start-first")
	count := 130 // two more than have entries of their own
	s.many(count)
	s.start()
	for _, point := range []string{"store bundle", "store remove"} {
		count++
		s.many(count)
		s.killedAt(point, func() { s.try(true) })
		s.start()
		s.reload()
		held := s.fds().Sockets
		if len(held) != count {
			t.Errorf("%s: %d sockets are held, not %d", point, len(held), count)
		}
		s.eventually(func() string {
			s.barrier()
			single, bundles := 0, 0
			for _, name := range s.manager.Names() {
				if strings.HasPrefix(name, "supervisor.socket.") {
					single++
				} else if strings.HasPrefix(name, "supervisor.bundle.") {
					bundles++
				}
			}
			if single != 128 || bundles != 1 {
				return fmt.Sprintf("%s: the store holds %d sockets and %d bundles", point, single, bundles)
			}
			return ""
		})
	}
	s.stop()
}

// A worker stores something else under the same name: the old one is removed, and the supervisor killed, before the new
// one is stored. What is lost is that one and nothing else.
func TestKillSupervisorBetweenTwoOfOneName(t *testing.T) {
	t.Parallel()
	s := faulty(t, "start-first")
	s.arguments("-push=blob")
	s.start()
	load := s.load()
	_, n := s.settled("supervisor.pushed.blob")
	fd := s.memfd("another")
	defer fd.Close()
	said := make(chan struct{})
	s.killedAt("store remove", func() {
		go func() {
			defer close(said)
			s.say(n, "FDSTORE=1\nFDNAME=blob", fd.Num())
		}()
	})
	s.start() // and answers what is asked in the message's wake
	<-said
	s.settled()
	s.reload()
	s.settled("supervisor.pushed.blob") // the next worker's
	load.end()
	s.stop()
}
