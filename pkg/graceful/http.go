package graceful

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// HTTP serves l with server once Run runs, with TLS if server.TLSConfig is set. Its Handler and ConnState are wrapped;
// the caller must not call the server's own Serve, Shutdown or Close. Hijacked connections are their owner's.
func (w *Worker) HTTP(l net.Listener, server *http.Server) {
	s := &httpService{listener: l, server: server, options: w.options,
		conns: map[net.Conn]tracked{}, changed: make(chan struct{}, 1)}
	s.wrap()
	w.register(s)
}

type httpService struct {
	listener net.Listener
	server   *http.Server
	options  Options
	draining atomic.Bool

	mu      sync.Mutex
	conns   map[net.Conn]tracked
	changed chan struct{}
}

// tracked is what a connection does, and since when.
type tracked struct {
	state http.ConnState
	since time.Time
}

func (s *httpService) wrap() {
	handler, hook := s.server.Handler, s.server.ConnState
	if handler == nil {
		handler = http.DefaultServeMux
	}
	s.server.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			rw.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(rw, r)
	})
	s.server.ConnState = func(c net.Conn, state http.ConnState) {
		s.track(c, state)
		if hook != nil {
			hook(c, state)
		}
	}
}

func (s *httpService) track(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(s.conns, c)
	} else {
		s.conns[c] = tracked{state, time.Now()}
	}
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *httpService) serve() error {
	var err error
	if s.server.TLSConfig != nil {
		err = s.server.ServeTLS(s.listener, "", "")
	} else {
		err = s.server.Serve(s.listener)
	}
	if closed(err) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", s.listener.Addr(), err)
}

func (s *httpService) begin() { s.draining.Store(true) }

// drain waits for the requests that are served, that are to come on new connections, and that may come on idle ones.
// The server's own SetKeepAlivesEnabled and Shutdown would close connections that are new for more than 5 s.
func (s *httpService) drain(ctx context.Context) error {
	begun := time.Now()
	for {
		left, next := s.sweep(begun)
		if left == 0 {
			return s.shutdown(ctx)
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-s.changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return s.cut()
		}
		timer.Stop()
	}
}

// sweep closes the connections that have had their time, and returns the number of those that are worth waiting for, and
// when the next one of them will have had it. An idle one may have been answered in the drain, by a handler that had
// begun before and said nothing of a close: its time begins then.
func (s *httpService) sweep(begun time.Time) (left int, next time.Time) {
	next = begun.Add(s.options.Timeout)
	var over []net.Conn
	s.mu.Lock()
	for c, t := range s.conns {
		end := next // of an active one
		switch t.state {
		case http.StateNew:
			end = begun.Add(s.options.Grace)
		case http.StateIdle:
			end = later(begun, t.since).Add(s.options.Idle)
		}
		switch {
		case t.state == http.StateActive, time.Now().Before(end):
			left++
			if end.Before(next) {
				next = end
			}
		case t.state == http.StateNew || !s.multiplexed(c):
			over = append(over, c)
		}
	}
	s.mu.Unlock()
	for _, c := range over {
		c.Close()
	}
	return left, next
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// count is the number of connections on which a request is under way, or with fresh may still come for the first time.
func (s *httpService) count(fresh bool) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.conns {
		if t.state == http.StateActive || fresh && t.state == http.StateNew {
			n++
		}
	}
	return n
}

// multiplexed tells whether c may speak HTTP/2, in which nothing is closed without the GOAWAY that Shutdown sends.
func (s *httpService) multiplexed(c net.Conn) bool {
	if t, ok := c.(*tls.Conn); ok {
		return t.ConnectionState().NegotiatedProtocol == "h2"
	}
	return s.server.Protocols != nil && s.server.Protocols.UnencryptedHTTP2()
}

// goodbye is how long connections on which nothing is under way are given to end by themselves.
const goodbye = time.Second

// shutdown ends what is idle, and waits for requests that came at the last moment.
func (s *httpService) shutdown(ctx context.Context) error {
	patience, cancel := context.WithTimeout(ctx, goodbye)
	defer cancel()
	if err := s.server.Shutdown(patience); err == nil || closed(err) {
		return nil
	}
	for s.count(false) > 0 {
		select {
		case <-s.changed:
		case <-ctx.Done():
			return s.cut()
		}
	}
	// HTTP/2 clients that ignore GOAWAY keep Shutdown waiting.
	s.server.Close()
	return nil
}

// cut closes everything and says what was lost by that.
func (s *httpService) cut() error {
	n := s.count(true)
	s.server.Close()
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d connections of %s were cut: the time to drain is over", n, s.listener.Addr())
}
