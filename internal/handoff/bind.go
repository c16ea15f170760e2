package handoff

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/intercept"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
)

// shimTimeout is how long the exec shim may take to install the filter for bind(2).
const shimTimeout = 5 * time.Second

// interception is the socket pair over which the exec shim of a starting worker sends the descriptor by which its
// bind(2) calls are answered.
type interception struct{ ours, child *sys.FD }

func newInterception() (*interception, error) {
	ours, child, err := sys.Socketpair(syscall.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	return &interception{ours, child}, nil
}

func (i *interception) close() {
	if i != nil {
		i.ours.Close()
		i.child.Close()
	}
}

// receive waits for the descriptor; from then on the worker's bind calls wait for an answer.
func (i *interception) receive(ctx context.Context) (*sys.FD, error) {
	i.child.Close()
	ctx, cancel := context.WithTimeout(ctx, shimTimeout)
	defer cancel()
	ours := sys.NewFD(i.ours.Disown())
	notify, err := intercept.Receive(ctx, ours)
	if err != nil {
		return nil, fmt.Errorf("intercept the worker's bind(2): %w", err)
	}
	return notify, nil
}

// Resolver chooses the held socket that a bind(2) of the generation is answered with. It returns a duplicate, which the
// caller closes: the held set may change meanwhile.
func Resolver(host Host, g *Generation) func(intercept.Request) (*sys.FD, error) {
	return func(req intercept.Request) (dup *sys.FD, err error) {
		host.Do(func(held *sockets.Set) {
			var list []intercept.Listener
			byFD := map[int]*sockets.Socket{}
			for _, s := range held.Ordered(nil) {
				ip, err := netip.ParseAddr(s.Info.Host)
				if err != nil {
					continue
				}
				fd := s.Slot(g.Slot).Num()
				byFD[fd] = s
				list = append(list, intercept.Listener{Network: s.Info.Network, Address: netip.AddrPortFrom(ip, uint16(s.Info.Port)), FD: fd})
			}
			fd, ok := intercept.Match(req, list)
			if !ok {
				return
			}
			if dup, err = sys.DupNum(fd); err == nil && setsMode(byFD[fd], req.Nonblock) {
				err = sys.SetNonblock(fd, req.Nonblock)
			}
		})
		if err != nil {
			dup.Close()
			return nil, err
		}
		return dup, nil
	}
}

// setsMode tells whether a socket gets the mode of the one that the worker made, whose place it takes. What the worker has
// done to its own socket it has done to this one, but not against the configuration. And most servers set O_NONBLOCK only
// after their bind: to clear it until then would let another generation block in accept(2), unless it has the other half.
func setsMode(s *sockets.Socket, nonblock bool) bool {
	return s.Nonblock == nil && (nonblock || s.Alternate != nil)
}

// withoutBind is for a check, which binds nothing.
func withoutBind(conventions []string) []string {
	return slices.DeleteFunc(slices.Clone(conventions), func(c string) bool { return c == config.ConventionBind })
}
