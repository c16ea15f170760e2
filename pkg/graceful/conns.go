package graceful

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Conns serves l once Run runs: handle is called in a goroutine of its own for each connection, which is closed when
// it returns. A drain stops accepting and waits for all handlers; ctx ends, and the connection is closed under the
// handler, only when the time to drain is over. A handler that would stay for long watches [Worker.Draining].
func (w *Worker) Conns(l net.Listener, handle func(ctx context.Context, c net.Conn)) {
	ctx, cancel := context.WithCancel(context.Background())
	w.register(&connService{listener: l, handle: func(c net.Conn) { handle(ctx, c) }, cancel: cancel, conns: map[net.Conn]struct{}{}})
}

type connService struct {
	listener net.Listener
	handle   func(c net.Conn)
	cancel   context.CancelFunc
	handlers sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func (s *connService) begin() {}

func (s *connService) serve() error {
	for {
		c, err := s.listener.Accept()
		switch {
		case err == nil:
			s.start(c)
		case closed(err):
			return nil
		case passing(err):
			time.Sleep(50 * time.Millisecond)
		default:
			return fmt.Errorf("serve %s: %w", s.listener.Addr(), err)
		}
	}
}

// passing tells an error of accept that does not concern the listener, such as no descriptor being left.
func passing(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM) ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ECONNABORTED)
}

func (s *connService) start(c net.Conn) {
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.handlers.Go(func() {
		defer func() {
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		}()
		s.handle(c)
	})
}

func (s *connService) drain(ctx context.Context) error {
	defer s.cancel()
	ended := make(chan struct{})
	go func() {
		s.handlers.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
	return fmt.Errorf("%d connections of %s were cut: the time to drain is over", len(s.conns), s.listener.Addr())
}

// Packets runs serve with c once Run runs. serve reads, without deadlines of its own, until it gets an error and returns that. A drain lets it read
// what is queued, for a tenth of a second, and then gives it [os.ErrDeadlineExceeded]; c is closed after it has
// returned, so a datagram that was read can be answered.
func (w *Worker) Packets(c net.PacketConn, serve func(c net.PacketConn) error) {
	w.register(&packetService{conn: c, run: serve, ended: make(chan struct{})})
}

// packetLinger is how long the queue of a datagram socket is still read in a drain.
const packetLinger = 100 * time.Millisecond

type packetService struct {
	conn  net.PacketConn
	run   func(c net.PacketConn) error
	ended chan struct{}
}

func (s *packetService) begin() { _ = s.conn.SetReadDeadline(time.Now().Add(packetLinger)) }

func (s *packetService) serve() error {
	defer close(s.ended)
	err := s.run(s.conn)
	if closed(err) || errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err == nil {
		return fmt.Errorf("serve %s: the server ended", s.conn.LocalAddr())
	}
	return fmt.Errorf("serve %s: %w", s.conn.LocalAddr(), err)
}

func (s *packetService) drain(ctx context.Context) error {
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the server of %s did not end in the time to drain", s.conn.LocalAddr())
	}
}
