package handoff_test

import (
	"strings"
	"testing"
)

// A working directory that is not there is said with its key and the program that was to start in it, not with the
// exec shim's; and it costs the old worker nothing.
func TestMissingDirectory(t *testing.T) {
	h := newHost(t)
	h.configure("", plain)
	h.must()
	for _, c := range []struct{ keys, words string }{
		{"directory = \"DIR/none\"\n", "spawn failed: start " + workerProgram + " in worker.directory: stat DIR/none: no such file"},
		{"directory = \"/dev/null\"\n", "spawn failed: start " + workerProgram + " in worker.directory: /dev/null is no directory"},
		{"directory = \"DIR/none\"\ncheck = [\"/bin/true\"]\n", "check failed: start /bin/true in worker.directory: stat DIR/none: no such file"},
	} {
		h.configure("", c.keys+plain)
		_, err := h.handoff()
		if want := strings.ReplaceAll(c.words, "DIR", h.dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	h.configure("", "directory = \"${dir}\"\ncheck = [\"/bin/true\"]\n"+plain)
	h.must()
}
