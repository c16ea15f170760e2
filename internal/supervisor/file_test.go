package supervisor_test

import (
	"fmt"
	"net"
	"os"
	"testing"
)

// The file of a Unix socket that the supervisor bound goes with the socket, also under the next supervisor; one that
// somebody else has put in its place stays.
func TestSocketFiles(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	tables := func(names ...string) {
		text := unitOnly
		for _, name := range names {
			text += fmt.Sprintf("[[socket]]\nname = %q\nlisten = \"unix:%s/%s\"\n", name, s.dir, name)
		}
		s.configure(text)
	}
	files := func(when string, want map[string]bool) {
		t.Helper()
		for name, there := range want {
			if _, err := os.Lstat(s.dir + "/" + name); (err == nil) != there {
				t.Errorf("%s: %s: %v", when, name, err)
			}
		}
	}
	tables("a", "b", "c", "d")
	s.start()
	s.kill()
	s.start()
	for _, name := range []string{"b", "d"} {
		path := s.dir + "/" + name
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	tables("c", "d")
	s.reload()
	files("after the reload", map[string]bool{"a": false, "b": true, "c": true, "d": true})
	s.stop()
	files("after the stop", map[string]bool{"b": true, "c": false, "d": true})
}
