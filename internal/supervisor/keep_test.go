package supervisor_test

import (
	"os"
	"strings"
	"testing"

	"github.com/8265a91a/supervisor/internal/supervisor"
)

// What systemd drops is stored again: by the next reload, or when a supervisor has become ready.
func TestStoreLosesEntries(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		again func(s *service)
	}{
		{"reload", func(s *service) { s.reload() }},
		{"reexec", func(s *service) { s.reexeced() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, "")
			s.installed()
			s.start()
			load := s.load()
			s.reload()
			s.settled()
			s.manager.SetMax(3) // drops the oldest
			s.manager.SetMax(fdstoreMax)
			c.again(s)
			s.settled()
			if w := s.warnings(); len(w) != 1 || !strings.Contains(w[0], "systemd holds 3 of") {
				t.Errorf("warnings: %q", w)
			}
			s.kill()
			s.start()
			s.reload()
			s.settled()
			load.end()
			if n := len(s.warnings()); n != 1 {
				t.Errorf("warnings: %q", s.warnings())
			}
			s.stop()
		})
	}
}

// With a limit that was lowered too far a reload fails, and when it is raised the next one stores everything: no restart
// is needed, which would lose what is not stored.
func TestStoreLowered(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	load := s.load()
	pid, _ := s.settled()
	for _, room := range []int{4, 3} {
		s.manager.SetMax(room)
		if message := s.reloadFails(); !strings.Contains(message, "full") || !strings.Contains(message, "keeps serving") {
			t.Error(message)
		}
		if now, _ := s.serving(); now != pid {
			t.Errorf("worker %d became %d", pid, now)
		}
	}
	s.manager.SetMax(fdstoreMax)
	s.reload()
	s.settled()
	s.kill()
	s.start()
	s.reload()
	s.settled()
	load.end()
	s.stop()
}

// A bundle that was dropped is made again, and one that was not is replaced.
func TestStoreLosesBundle(t *testing.T) {
	t.Parallel()
	const count = 150
	s := newService(t, unitOnly)
	s.many(count)
	s.start()
	s.barrier()
	entries := len(s.manager.Names())
	for _, prefix := range []string{"supervisor.bundle", "supervisor.socket.s0"} {
		s.forget(prefix)
		s.reload()
		s.barrier()
		if names := s.manager.Names(); len(names) != entries {
			t.Errorf("%s: %d entries of %d: %q", prefix, len(names), entries, names)
		}
	}
	s.kill()
	s.start()
	if got := len(s.fds().Sockets); got != count {
		t.Errorf("%d sockets of %d", got, count)
	}
	s.stop()
}

// A systemd that does not read makes a reload fail; it does not stop the daemon from answering.
func TestManagerDoesNotRead(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	load := s.load()
	s.settled()
	resume := s.manager.Pause()
	store := s.store()
	for err := error(nil); err == nil; {
		err = store.TryNotify("STATUS=the queue gets full")
	}
	if message := s.reloadFails(); !strings.Contains(message, "nobody reads the notify socket") || !strings.Contains(message, "keeps serving") {
		t.Error(message)
	}
	if st := s.status(); st.State != "serving" {
		t.Errorf("the service is %s", st.State)
	}
	resume()
	s.reload()
	s.settled()
	load.end()
	s.stop()
}

// Under systemd --user the system's manager may have a unit of the same name, and knows nothing of this one.
func TestAnswerOfAnotherManager(t *testing.T) {
	for _, c := range []struct {
		properties map[string]any
		want       bool
	}{
		{map[string]any{"MainPID": uint32(os.Getpid())}, true},
		{map[string]any{"MainPID": uint32(0)}, false},
		{map[string]any{"MainPID": uint32(1)}, false},
		{nil, false},
	} {
		if got := supervisor.IsMain(c.properties); got != c.want {
			t.Errorf("%v: %t", c.properties, got)
		}
	}
}
