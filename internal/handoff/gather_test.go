package handoff_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/sockets"
)

// A worker that does not answer when it is asked for its sockets is replaced all the same, if they are held, wherever
// they came from; what workers pushed is no such socket.
func TestOldWorkerDoesNotAnswer(t *testing.T) {
	for _, c := range []struct {
		origin sockets.Origin
		fails  bool
	}{{origin: sockets.Bound}, {origin: sockets.Unit}, {origin: sockets.Fetched}, {origin: sockets.Pushed, fails: true}} {
		t.Run(string(c.origin), func(t *testing.T) {
			h := newHost(t)
			h.configure("-bind=unix:"+h.dir+"/own", "[drain]\ndivert = \"none\"\n")
			h.must()
			h.serving.Config.Handoff.Fetch, h.serving.Config.Handoff.Getsocks = config.FetchGetsocks, h.dir+"/nobody"
			h.listener(c.origin, "held", 8080)
			_, err := h.handoff()
			if (err != nil) != c.fails {
				t.Errorf("the handoff: %v", err)
			}
			if h.noted("going on with the 1 held ones") == c.fails {
				t.Errorf("notes: %q", h.notes)
			}
		})
	}
}

// Sockets that come and go while a worker is looked into, as those of a resolver do, are neither an error nor listeners.
func TestTransientSockets(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	tables := plain + "[handoff]\nfetch = \"pidfd\"\n"
	h.configure("-ask=4 -bind=udp:"+h.addr+":8081", tables)
	for range 3 {
		h.must()
		h.configure("-ask=4", tables)
		var names []string
		for name := range h.picture().Held {
			names = append(names, name)
		}
		slices.Sort(names)
		if len(names) != 2 || names[0] != "http" || !strings.Contains(names[1], h.addr) {
			t.Fatalf("held: %q", names)
		}
	}
}
