package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

const (
	maxClients = 32
	maxLine    = 64 << 10
	maxQueued  = 256
	// patience bounds the wait for a client to say what it wants, and to take one line of the answer.
	patience = 5 * time.Second
)

// past is a deadline that ends every wait at once.
var past = time.Unix(1, 0)

// Handler is the daemon's side. Its methods are called from several goroutines.
type Handler interface {
	// Reload replaces the worker and returns when the result is known, or with drained when the old generation has
	// ended. ctx ends when the client has gone or the server stops: Reload then returns soon, and the handoff goes on.
	// events does not block, and does nothing once Reload has returned.
	Reload(ctx context.Context, drained bool, events func(Event)) Result
	// Reexec prepares to replace the supervisor's binary in place and returns before that happens: the daemon lets
	// Serve end first, which sends the answer.
	Reexec(ctx context.Context, events func(Event)) Result
	Status() Status
	FDs() FDs
}

// Listener is the open control socket of a daemon.
type Listener struct {
	l    *net.UnixListener
	uid  uint32
	path string
	file os.FileInfo
}

// Listen opens the control socket at path (mode 0600) for root and uid. A socket that nobody listens on is replaced;
// one that is in use is an error, since the service is running then. The caller closes the listener.
func Listen(path string, uid int) (*Listener, error) {
	if err := sys.RemoveStaleSocket(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	ctl := &Listener{l: l, uid: uint32(uid), path: path}
	err = os.Chmod(path, 0o600)
	if err == nil {
		ctl.file, err = os.Lstat(path)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return ctl, nil
}

// Close stops listening and removes the path if it is still this listener's own.
func (ctl *Listener) Close() error {
	err := ctl.l.Close()
	if at, statErr := os.Lstat(ctl.path); statErr == nil && os.SameFile(at, ctl.file) {
		err = errors.Join(err, os.Remove(ctl.path))
	}
	return err
}

// Serve answers clients until ctx ends or the listener is closed, and waits for the handler's calls under way. It
// borrows the listener.
func Serve(ctx context.Context, ctl *Listener, h Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ctl.l.SetDeadline(past) })
	defer stop()
	slots := make(chan struct{}, maxClients)
	for {
		conn, err := ctl.l.AcceptUnix()
		switch {
		case err == nil:
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return nil
		default:
			// Out of descriptors or memory, or a client that gave up: the next one may fare better.
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		clients.Go(func() {
			defer conn.Close()
			s := session{conn: conn, handler: h}
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
				s.run(ctx, ctl.uid)
			default:
				s.refuse(fmt.Sprintf("too many clients: %d are connected", maxClients))
			}
		})
	}
}

type session struct {
	conn    *net.UnixConn
	handler Handler
}

func (s *session) run(ctx context.Context, uid uint32) {
	peer, err := sys.PeerCred(s.conn)
	if err != nil {
		return
	}
	if peer.UID != 0 && peer.UID != uid {
		s.refuse(fmt.Sprintf("user %d may not control this service", peer.UID))
		return
	}
	request, err := s.read(ctx)
	if err != nil {
		s.refuse(err.Error())
		return
	}
	switch request.Op {
	case OpStatus:
		status := s.handler.Status()
		status.V = Version
		s.write(Event{Type: TypeStatus, Status: &status})
	case OpFDs:
		fds := s.handler.FDs()
		fds.V = Version
		s.write(Event{Type: TypeFDs, FDs: &fds})
	case OpReload:
		s.perform(ctx, func(ctx context.Context, events func(Event)) Result {
			return s.handler.Reload(ctx, request.Drained, events)
		})
	case OpReexec:
		s.perform(ctx, s.handler.Reexec)
	}
}

func (s *session) read(ctx context.Context) (Request, error) {
	s.conn.SetReadDeadline(time.Now().Add(patience))
	stop := context.AfterFunc(ctx, func() { s.conn.SetReadDeadline(past) })
	defer stop()
	line, err := bufio.NewReaderSize(s.conn, maxLine).ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return Request{}, fmt.Errorf("request is longer than %d bytes", maxLine)
	}
	if err != nil {
		return Request{}, fmt.Errorf("no request came: %w", err)
	}
	return ParseRequest(line)
}

// perform runs something that takes long, with a context that ends when the client leaves, while events go out.
func (s *session) perform(ctx context.Context, call func(context.Context, func(Event)) Result) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan struct{})
	s.conn.SetReadDeadline(time.Time{})
	go func() {
		defer close(watched)
		s.watch(cancel)
	}()
	out := outbox{queue: make(chan Event, maxQueued)}
	written := make(chan struct{})
	go func() {
		defer close(written)
		for e := range out.queue {
			if ctx.Err() == nil && s.write(e) != nil {
				cancel()
			}
		}
	}()
	result := call(ctx, out.put)
	dropped := out.close()
	<-written
	if dropped > 0 {
		s.write(Event{Type: TypeNote, Text: fmt.Sprintf("%d events were dropped because the client did not read them", dropped)})
	}
	s.write(Event{Type: TypeResult, Result: &result})
	s.conn.SetReadDeadline(past)
	<-watched
}

// outbox is a queue that drops what does not fit, and what comes after the result.
type outbox struct {
	mu      sync.Mutex
	queue   chan Event
	closed  bool
	dropped int
}

func (o *outbox) put(e Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	select {
	case o.queue <- e:
	default:
		o.dropped++
	}
}

func (o *outbox) close() (dropped int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	close(o.queue)
	return o.dropped
}

// watch calls gone when the client has closed the connection. One that has only finished writing (socat) still listens.
func (s *session) watch(gone func()) {
	buf := make([]byte, 512)
	for {
		if _, err := s.conn.Read(buf); err != nil {
			if hung, err := sys.ConnHungUp(s.conn); err == nil && hung {
				gone()
			}
			return
		}
	}
}

func (s *session) refuse(text string) { s.write(Event{Type: TypeError, Text: text}) }

func (s *session) write(e Event) error {
	e.V = Version
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	s.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err = s.conn.Write(append(line, '\n'))
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		// Half a line is of no use to anybody, and the next one must not follow it.
		s.conn.CloseWrite()
	}
	return err
}
