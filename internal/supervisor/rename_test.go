package supervisor_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// rename gives the service's socket another name in the configuration.
func (s *service) rename(name string) {
	s.t.Helper()
	s.configure(fmt.Sprintf("[[socket]]\nname = %q\nlisten = \"ADDR\"\n", name))
}

// stores waits until the store holds, of sockets, the pair called name and nothing else.
func (s *service) stores(name string) {
	s.t.Helper()
	want := fmt.Sprintf("[supervisor.alternate.%s supervisor.socket.%s]", name, name)
	s.eventually(func() string {
		s.barrier()
		have := s.manager.Names()
		have = slices.DeleteFunc(have, func(n string) bool {
			return !strings.Contains(n, ".socket.") && !strings.Contains(n, ".alternate.") && !strings.Contains(n, ".bundle.")
		})
		if got := fmt.Sprint(have); got != want {
			return "the store holds " + got + ", not " + want
		}
		return ""
	})
}

// A renamed [[socket]] is the same socket under the new name, for the next supervisor too, and under the old one after a
// failed reload.
func TestRenamedSocket(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	cookie := s.fds().Sockets[0].Cookie
	load := s.load()
	is := func(name string) {
		t.Helper()
		if f := s.fds(); len(f.Sockets) != 1 || f.Sockets[0].Name != name || f.Sockets[0].Cookie != cookie || !f.Sockets[0].Stored {
			t.Errorf("held, and not %s: %+v", name, f.Sockets)
		}
		s.stores(name)
	}
	s.rename("web")
	s.reload()
	is("web")
	s.kill()
	s.start()
	is("web")
	s.rename("site")
	s.arguments("-exit", "3")
	s.reloadFails()
	is("web")
	s.arguments()
	s.reload()
	is("site")
	load.end()
	if w := s.warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	s.stop()
}
