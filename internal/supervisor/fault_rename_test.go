//go:build fault

package supervisor_test

import (
	"syscall"
	"testing"
)

// The supervisor is killed at every point of a reload that renames a socket, also between the entries of the store: the
// socket is never lost.
func TestKillSupervisorWhileRenaming(t *testing.T) {
	t.Parallel()
	s := faulty(t, "start-first")
	s.start()
	s.settled()
	cookie := s.fds().Sockets[0].Cookie
	load := s.load()
	names := []string{"web", "http"}
	s.rename(names[0])
	tally := &tally{t: t}
	for i, point := range s.points() {
		s.rename(names[(i+1)%2])
		if tally.note(point, s.during(point, "kill")) {
			if exit := s.ended(); exit.Signal != syscall.SIGKILL {
				t.Fatalf("%s: the daemon ended with %+v", point, exit)
			}
			s.start()
			s.reload()
		}
		s.stores(names[(i+1)%2])
		if f := s.fds(); len(f.Sockets) != 1 || f.Sockets[0].Cookie != cookie {
			t.Fatalf("%s: held: %+v", point, f.Sockets)
		}
	}
	tally.check()
	load.end()
	s.stop()
}
