package handoff_test

import (
	"net/netip"
	"testing"

	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/intercept"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
)

// What a bind(2) is answered with stays that socket, whatever becomes of the held set meanwhile.
func TestResolverKeepsItsSocket(t *testing.T) {
	h := newHost(t)
	s := h.listener(sockets.Bound, "http", 8080)
	resolve := handoff.Resolver(h, handoff.NewGeneration(1, 0, nil))
	fd, err := resolve(intercept.Request{Network: "tcp", Address: netip.MustParseAddrPort(h.addr + ":8080")})
	if err != nil || fd == nil {
		t.Fatal(fd, err)
	}
	defer fd.Close()
	h.held.Remove(s)
	if cookie, err := sys.Cookie(fd.Num()); err != nil || cookie != s.Cookie {
		t.Errorf("it is socket %d, not %d: %v", cookie, s.Cookie, err)
	}
	if fd, err := resolve(intercept.Request{Network: "tcp", Address: netip.MustParseAddrPort(h.addr + ":8081")}); fd != nil || err != nil {
		t.Errorf("a socket for an address that nobody holds: %v, %v", fd, err)
	}
}

// A socket gets the mode of the one whose place it takes, unless the configuration names one. A mode is not taken away from
// a socket that another generation accepts on.
func TestResolverSetsMode(t *testing.T) {
	on, off := true, false
	for _, c := range []struct {
		name              string
		configured        *bool
		pair              bool
		was, worker, want bool
	}{
		{"as it is", nil, false, false, false, false},
		{"set", nil, false, false, true, true},
		{"not cleared", nil, false, true, false, true},
		{"set in a pair", nil, true, false, true, true},
		{"cleared in a pair", nil, true, true, false, false},
		{"configured to block", &off, false, false, true, false},
		{"configured not to block", &on, true, true, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			s := h.listener(sockets.Bound, "http", 8080)
			s.Nonblock = c.configured
			if c.pair {
				h.held.Pair(s, h.other(8081))
			}
			shared := s.Slot(1).Num()
			if err := sys.SetNonblock(shared, c.was); err != nil {
				t.Fatal(err)
			}
			resolve := handoff.Resolver(h, handoff.NewGeneration(2, 1, nil))
			fd, err := resolve(intercept.Request{Network: "tcp", Address: netip.MustParseAddrPort(h.addr + ":8080"), Nonblock: c.worker})
			if err != nil || fd == nil {
				t.Fatal(fd, err)
			}
			defer fd.Close()
			if now, err := sys.Nonblock(shared); err != nil || now != c.want {
				t.Errorf("O_NONBLOCK is %v, want %v: %v", now, c.want, err)
			}
		})
	}
}

// other is a listener that is nobody's yet.
func (h *host) other(port uint32) *sys.FD {
	h.t.Helper()
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: h.addr, Port: port})
	if err != nil {
		h.t.Fatal(err)
	}
	return fd
}
