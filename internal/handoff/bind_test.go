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
