package handoff_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/8265a91a/supervisor/internal/handoff"
)

// A worker, and the commands about it, see each variable once: the configuration's wins over the service's own, and the
// supervisor's over both.
func TestEnvironment(t *testing.T) {
	for _, name := range []string{"LC_TEST", "LISTEN_FDS", "NGINX", "WATCHDOG_USEC", "SUPERVISOR_GENERATION", "WORKER_PID"} {
		t.Setenv(name, "inherited")
	}
	h := newHost(t)
	save := func(file string) string {
		return "[\"/bin/sh\", \"-c\", \"cat /proc/self/environ > DIR/" + file + "\"]\n"
	}
	h.configure("", "check = "+save("check.env")+"watchdog = \"7s\"\nsockets = [\"systemd\", \"nginx\"]\n"+
		"environment = { LC_TEST = \"configured\", NGINX = \"configured\" }\n"+plain+"[ready]\nwhen = [\"command\"]\ncommand = "+save("ready.env"))
	h.must()
	g := h.serving
	marker := strings.TrimPrefix(handoff.MarkerOf(h.name, "test", g.N), "SUPERVISOR_GENERATION=")
	for _, c := range []struct {
		file string
		want map[string]string
	}{
		{fmt.Sprintf("/proc/%d/environ", g.PID()), map[string]string{
			"LC_TEST": "configured", "LISTEN_FDS": "1", "NGINX": "3;", "WATCHDOG_USEC": "7000000",
			"SUPERVISOR_GENERATION": marker, "NOTIFY_SOCKET": g.Notify.Path(),
		}},
		{h.dir + "/check.env", map[string]string{"LC_TEST": "configured"}},
		{h.dir + "/ready.env", map[string]string{"LC_TEST": "inherited", "WORKER_PID": fmt.Sprint(g.PID())}},
	} {
		data, err := os.ReadFile(c.file)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range c.want {
			found := slices.DeleteFunc(strings.Split(string(data), "\x00"), func(kv string) bool { return !strings.HasPrefix(kv, name+"=") })
			if len(found) != 1 || found[0] != name+"="+want {
				t.Errorf("%s: %s is %q, want once %q", c.file, name, found, want)
			}
		}
	}
}
