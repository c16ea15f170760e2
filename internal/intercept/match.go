package intercept

import "net/netip"

// Request is a bind(2) of a worker: it asks for a socket of Network (tcp or udp) at Address.
type Request struct {
	Network string
	Address netip.AddrPort
	// Nonblock is O_NONBLOCK of the socket that the worker made.
	Nonblock bool
	// PID is the process that calls.
	PID int
}

// Listener is a socket that may be given for a request.
type Listener struct {
	Network string
	Address netip.AddrPort
	// FD is borrowed.
	FD int
}

// Match returns the descriptor of the first of listeners that fits req best: the address asked for; else, for a
// wildcard, the wildcard of the other family; else, for a wildcard, any address with the port. The last two are not
// what was asked for, but what was asked for could not be bound beside them. A listener that accepts more than was
// asked for is never given, except that "::" may accept IPv4 too: who binds 127.0.0.1 must not be reachable from
// outside.
func Match(req Request, listeners []Listener) (fd int, ok bool) {
	best := 0
	asked := req.Address.Addr().Unmap().WithZone("")
	for _, l := range listeners {
		if l.Network != req.Network || l.Address.Port() != req.Address.Port() {
			continue
		}
		have := l.Address.Addr().Unmap().WithZone("")
		score := 0
		switch {
		case have == asked:
			score = 3
		case asked.IsUnspecified() && have.IsUnspecified():
			score = 2
		case asked.IsUnspecified():
			score = 1
		}
		if score > best {
			best, fd = score, l.FD
		}
	}
	return fd, best > 0
}
