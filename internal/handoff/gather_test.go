package handoff_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/handoff"
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

// lies are what a worker may answer to _getsocks, and what a handoff to it says then; nothing where it succeeds.
var lies = map[string]string{
	"few": "after 3 of 4 sockets", "many": "sent at least 3", "none": "closed without an answer", "half": "unexpected EOF",
	"zero": "listens on nothing", "pipe": "not a socket", "file": "not a socket", "connection": "no listening socket",
	"short": "", "foreign:unix:DIR/foreign": "",
}

// Whatever the newcomer answers when it is asked for its sockets, those that it serves stay held.
func TestNewcomerLies(t *testing.T) {
	for lie, words := range lies {
		t.Run(lie, func(t *testing.T) {
			h := newHost(t)
			lie = strings.ReplaceAll(lie, "DIR", h.dir)
			tables := plain + "[[socket]]\nname = \"other\"\nlisten = \"ADDR:8081\"\n[handoff]\ngetsocks = \"DIR/own.sock\"\n"
			honest := "-getsocks=" + h.dir + "/own.sock"
			h.configure(honest, tables)
			h.must()
			held := h.picture().Held
			h.configure(honest+" -lie="+lie, tables)
			_, err := h.handoff()
			if (err == nil) != (words == "") || err != nil && !strings.Contains(err.Error(), words) {
				t.Errorf("the handoff: %v, want %q", err, words)
			}
			if f, _ := err.(*handoff.Failure); f != nil && f.Step != "reconcile" {
				t.Errorf("it failed in %s", f.Step)
			}
			h.configure(honest, tables)
			h.must()
			h.stillHolds(held)
		})
	}
}

// Whatever the old worker answers, it is replaced, with the sockets that are held.
func TestOldWorkerLies(t *testing.T) {
	for lie, words := range lies {
		t.Run(lie, func(t *testing.T) {
			h := newHost(t)
			lie = strings.ReplaceAll(lie, "DIR", h.dir)
			tables := plain + "[handoff]\ngetsocks = \"DIR/own.sock\"\n"
			honest := "-getsocks=" + h.dir + "/own.sock"
			h.configure(honest+" -lie-after=1 -lie="+lie, tables)
			h.must()
			held := h.picture().Held
			h.configure(honest, tables)
			h.must()
			if h.noted("going on with the 1 held ones") == (words == "" || lie == "zero") {
				t.Errorf("notes: %q", h.notes)
			}
			h.stillHolds(held)
		})
	}
}

// stillHolds looks for these sockets, by name and identity, and that they are served. What a worker handed out beside them may
// have come to them, and is served by the next one, which gets it.
func (h *host) stillHolds(held map[string]uint64) {
	h.t.Helper()
	for name, cookie := range held {
		if s := h.held.Get(name); s == nil || s.Cookie != cookie || s.Unclaimed {
			h.t.Errorf("socket %s (%d) is lost: %+v", name, cookie, s)
		}
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
