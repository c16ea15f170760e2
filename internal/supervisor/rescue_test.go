package supervisor_test

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
)

// leave makes connections that their client has closed again, and that nobody accepts.
func (s *service) leave() {
	s.t.Helper()
	for range 2 {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			s.t.Fatal(err)
		}
		c.Close()
	}
}

// drained ends draining workers until generation serves alone, and the log has each of the words so many times.
func (s *service) drained(generation int, words map[string]int) {
	s.t.Helper()
	s.eventually(func() string {
		for _, g := range s.status().Generations {
			if g.State == "draining" && g.PID > 0 {
				_ = syscall.Kill(g.PID, syscall.SIGKILL)
			}
		}
		for w, want := range words {
			if n := strings.Count(s.log(), w); n != want {
				return fmt.Sprintf("%q is in the log %d times, not %d", w, n, want)
			}
		}
		return ""
	})
	if _, n := s.settled(); n != generation {
		s.t.Errorf("generation %d serves, not %d", n, generation)
	}
}

const (
	takes  = "the next generation takes them"
	none   = "no handoff is begun for them"
	enough = "no further handoff is begun for them"
)

// Connections at a socket that the worker was given and does not accept on are no reason for a handoff; a worker that
// accepts takes them.
func TestNoRescueForDeafWorker(t *testing.T) {
	t.Parallel()
	s := newService(t, "[ready]\nwhen = [\"notify\"]\n")
	s.arguments("-ignore-sockets")
	s.start()
	for n := 2; n <= 3; n++ {
		s.leave()
		s.must()
		s.drained(n, map[string]int{none: n - 1, takes: 0})
	}
	s.arguments()
	s.must()
	s.drained(5, map[string]int{none: 2, takes: 1}) // one by hand, and one for the other half
	s.stop()
}

// A worker that is seen waiting for connections, and accepts none, is replaced once for each half of the pair.
func TestNoSecondRescue(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.arguments("-accept=never")
	s.start()
	s.leave()
	s.must()
	s.leave()
	s.drained(4, map[string]int{takes: 2, enough: 2})
	s.stop()
}

// must reloads and does not wait for the end of the old generation.
func (s *service) must() {
	s.t.Helper()
	if r, err := s.try(false); err != nil || !r.OK {
		s.t.Fatalf("reload: %v, %+v", err, r)
	}
}
