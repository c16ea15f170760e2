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
		conns: map[net.Conn]http.ConnState{}, changed: make(chan struct{}, 1)}
	s.wrap()
	w.register(s)
}

type httpService struct {
	listener net.Listener
	server   *http.Server
	options  Options
	draining atomic.Bool

	mu      sync.Mutex
	conns   map[net.Conn]http.ConnState
	changed chan struct{}
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
		s.conns[c] = state
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
	idle, grace := time.NewTimer(s.options.Idle), time.NewTimer(s.options.Grace)
	defer idle.Stop()
	defer grace.Stop()
	waitIdle, waitNew := true, true
	for s.busy(waitNew, waitIdle) > 0 {
		select {
		case <-s.changed:
		case <-idle.C:
			waitIdle = false
		case <-grace.C:
			waitNew = false
		case <-ctx.Done():
			return s.cut()
		}
		if !waitIdle {
			s.close(func(c net.Conn, state http.ConnState) bool { return state == http.StateIdle && !s.multiplexed(c) })
		}
		if !waitNew {
			s.close(func(_ net.Conn, state http.ConnState) bool { return state == http.StateNew })
		}
	}
	return s.shutdown(ctx)
}

// busy counts the connections that are worth waiting for.
func (s *httpService) busy(waitNew, waitIdle bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, state := range s.conns {
		if state == http.StateActive || state == http.StateNew && waitNew || state == http.StateIdle && waitIdle {
			n++
		}
	}
	return n
}

// close closes the connections that which selects.
func (s *httpService) close(which func(c net.Conn, state http.ConnState) bool) {
	s.mu.Lock()
	var list []net.Conn
	for c, state := range s.conns {
		if which(c, state) {
			list = append(list, c)
		}
	}
	s.mu.Unlock()
	for _, c := range list {
		c.Close()
	}
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
	for s.busy(false, false) > 0 {
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
	n := s.busy(true, false)
	s.server.Close()
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d connections of %s were cut: the time to drain is over", n, s.listener.Addr())
}
