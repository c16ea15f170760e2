package handoff

import (
	"context"
	"net"
	"syscall"

	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/getsocks"
)

// pairing is the socketpair over which a starting HAProxy asks for its sockets (-x sockpair@N).
type pairing struct {
	child *sys.FD
	conn  *net.UnixConn
	stop  context.CancelFunc
	done  chan struct{}
}

func newPairing() (*pairing, error) {
	ours, child, err := sys.Socketpair(syscall.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	conn, err := sys.UnixConn(ours)
	if err != nil {
		child.Close()
		return nil, err
	}
	return &pairing{child: child, conn: conn, done: make(chan struct{})}, nil
}

func (p *pairing) serve(list []getsocks.Socket) {
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	go func() {
		defer close(p.done)
		getsocks.ServePair(ctx, p.conn, func() []getsocks.Socket { return list })
	}()
}

// started closes the child's end in this process.
func (p *pairing) started() {
	if p != nil {
		p.child.Close()
	}
}

func (p *pairing) close() {
	if p == nil || p.stop == nil {
		return
	}
	p.child.Close()
	p.stop()
	p.conn.Close()
	<-p.done
}

// offer lists what a newcomer may take by _getsocks. The descriptors are borrowed: but for what workers push, nothing
// leaves the held set while a worker starts.
func (h *Handoff) offer(slot int) (list []getsocks.Socket, err error) {
	h.Host.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(nil) {
			o := Offer(s, slot)
			if s.Origin == sockets.Pushed && err == nil {
				o.FD, err = h.duplicate(o.FD.Num())
			}
			list = append(list, o)
		}
	})
	return list, err
}

// Offer lends a held socket, as generations of slot accept on it, with the names that HAProxy compares.
func Offer(s *sockets.Socket, slot int) getsocks.Socket {
	return getsocks.Socket{FD: s.Slot(slot), Namespace: s.Namespace, Interface: s.Interface}
}
