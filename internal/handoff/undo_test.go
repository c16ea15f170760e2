package handoff_test

import (
	"maps"
	"net"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What the new configuration leaves out, and what the newcomer bound itself, is as it was if the switch fails.
func TestSwitchFails(t *testing.T) {
	h := newHost(t)
	fetch := "[handoff]\nfetch = \"pidfd\"\n"
	h.configure("", plain+fetch+"[[socket]]\nname = \"path\"\nlisten = \"unix:DIR/path\"\n[[socket]]\nname = \"two\"\nlisten = \"ADDR:8081\"\n")
	h.must()
	before := h.picture()
	h.configure("-bind=tcp:"+h.addr+":99", plain+fetch)
	h.fail = "Switch"
	if _, err := h.handoff(); err == nil {
		t.Fatal("it did not fail")
	}
	if diff := cmp.Diff(before, h.picture()); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct {
		network, address string
		want             bool
	}{
		{"tcp", h.addr + ":8080", true}, {"tcp", h.addr + ":8081", true}, {"unix", h.dir + "/path", true}, {"tcp", h.addr + ":99", false},
	} {
		conn, err := net.Dial(c.network, c.address)
		if (err == nil) != c.want {
			t.Errorf("dial %s: %v", c.address, err)
		}
		if err == nil {
			conn.Close()
		}
	}
	h.must()
	if names := slices.Sorted(maps.Keys(h.picture().Held)); !slices.Equal(names, []string{"http", "tcp-" + h.addr + "_99"}) {
		t.Errorf("held after the switch: %q", names)
	}
}
