package supervisor_test

import (
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestStartReloadStop(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	load := s.load()
	first, n := s.settled()
	if n != 1 {
		t.Errorf("the first generation is %d", n)
	}
	for range 5 {
		s.reload()
	}
	if pid, n := s.settled(); pid == first || n != 6 {
		t.Errorf("after five reloads generation %d serves with pid %d", n, pid)
	}
	load.end()
	s.stop()
	if _, err := ask(s.addr); err == nil {
		t.Error("somebody answers after the stop")
	}
	if left := s.processes(); len(left) > 0 {
		t.Errorf("left after the stop: %v", left)
	}
}

func TestSignalsReload(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	for i, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR2} {
		s.signal(sig)
		s.eventually(func() string {
			if _, n := s.serving(); n != i+2 {
				return sig.String() + " does not reload"
			}
			return ""
		})
		s.settled()
	}
	s.stop()
}

// A socket that a .socket unit passes stays that unit's over reloads, supervisors and stops.
func TestUnitSocket(t *testing.T) {
	t.Parallel()
	s := newService(t, unitOnly)
	s.passed("http")
	s.start()
	load := s.load()
	s.reload()
	s.kill()
	s.start()
	s.reload()
	s.settled()
	if f := s.fds(); len(f.Sockets) != 1 || f.Sockets[0].Origin != "unit" {
		t.Errorf("held: %+v", f.Sockets)
	}
	load.end()
	s.stop()
	s.barrier()
	s.manager.Stop()
	s.start()
	s.settled()
	if answer, err := ask(s.addr); err != nil || !strings.Contains(answer, "gen=1") {
		t.Errorf("after a stop and a start: %q, %v", answer, err)
	}
	s.stop()
}

// Without FileDescriptorName= a socket is called after its unit, in characters and of a length that the FD store does
// not keep.
func TestUnitSocketName(t *testing.T) {
	t.Parallel()
	for name, entry := range map[string]string{
		`esc\x2daped@a:b.socket`:             "esc_x2daped@a_b.socket",
		strings.Repeat("n", 248) + ".socket": strings.Repeat("n", 200),
	} {
		s := newService(t, unitOnly)
		s.passed(name)
		s.start()
		load := s.load()
		s.reload()
		s.kill()
		s.start()
		s.reload()
		if f := s.fds(); len(f.Sockets) != 1 || f.Sockets[0].Origin != "unit" || f.Sockets[0].Name != entry || !f.Sockets[0].Stored {
			t.Errorf("held: %+v", f.Sockets)
		}
		if names := s.manager.Names(); !slices.Contains(names, "supervisor.socket."+entry) {
			t.Errorf("stored: %v", names)
		}
		load.end()
		s.stop()
	}
}
