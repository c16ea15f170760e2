package getsocks

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/8265a91a/supervisor/internal/sys"
)

// ServePair is the supervisor's end of haproxy -x sockpair@N, where N is the other end of c, a unix stream socket pair
// that the process inherited. For each request HAProxy sends 2 bytes and one end of a fresh socket pair, on which it
// then speaks _getsocks; the answer is what sockets returns, borrowed until it is sent. ServePair borrows c, and
// returns when the peer closes or ctx ends. A request that fails does not end it: the first such failure is returned at the end.
func ServePair(ctx context.Context, c *net.UnixConn, sockets func() []Socket) error {
	defer bind(ctx, c)()
	var failed error
	for {
		m, err := sys.ReadMessage(c, make([]byte, 2))
		switch {
		case ctx.Err() != nil:
			sys.CloseAll(m.FDs)
			return failed
		case err != nil && !hungUp(err):
			return errors.Join(failed, fmt.Errorf("receive request: %w", err))
		case m.N == 0:
			return failed
		case len(m.FDs) == 0:
			// The second byte of a request that came in two pieces, or noise: it asks for nothing.
			continue
		}
		if err := serveReceived(ctx, m.FDs, sockets); err != nil && failed == nil {
			failed = err
		}
	}
}

// serveReceived takes ownership of fds, of which there must be one.
func serveReceived(ctx context.Context, fds []*FD, sockets func() []Socket) error {
	defer sys.CloseAll(fds)
	if len(fds) != 1 {
		return fmt.Errorf("request carries %d descriptors, want 1", len(fds))
	}
	// Making a connection of it sets O_NONBLOCK for every holder, which must not happen to somebody's listener.
	info, err := sys.Inspect(fds[0].Num())
	if err != nil {
		return fmt.Errorf("inspect the descriptor of the request: %w", err)
	}
	if info.Network != "unix" || info.Listening {
		return fmt.Errorf("descriptor of the request is a %s socket at %q, want a connected unix stream socket", info.Network, info.Address)
	}
	conn, err := sys.UnixConn(fds[0])
	if err != nil {
		return fmt.Errorf("use the descriptor of the request: %w", err)
	}
	defer conn.Close()
	return serve(ctx, conn, func() ([]Socket, func()) { return sockets(), func() {} })
}
