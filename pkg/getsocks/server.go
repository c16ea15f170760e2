package getsocks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// maxClients is how many connections a server answers at once; more wait in the backlog.
const maxClients = 16

// Server answers _getsocks on a path, for haproxy -x PATH.
type Server struct {
	// OnError, if set before Serve, is told about every connection that failed. It is called from several goroutines.
	OnError func(error)

	listener *net.UnixListener
	path     string
	file     os.FileInfo
}

// Listen returns a server bound to path, which only the process's own user and root can connect to (mode 0600).
// Whatever socket was at path is replaced in one step. The caller closes the server.
func Listen(path string) (*Server, error) {
	temp := path + "." + strconv.Itoa(os.Getpid()) + ".tmp"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove left-over socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	s := &Server{listener: l, path: path}
	if err := s.publish(temp); err != nil {
		l.Close()
		os.Remove(temp)
		return nil, err
	}
	return s, nil
}

func (s *Server) publish(temp string) error {
	if err := os.Chmod(temp, 0o600); err != nil {
		return err
	}
	file, err := os.Lstat(temp)
	if err != nil {
		return err
	}
	if at, err := os.Lstat(s.path); err == nil && at.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("bind %s: there is a file that is not a socket", s.path)
	}
	s.file = file
	return os.Rename(temp, s.path)
}

// Path returns the path that clients connect to.
func (s *Server) Path() string { return s.path }

// Serve answers connections, several at a time, until ctx ends or the server is closed, and waits for those under way.
// For each request it calls sockets, borrows what that returns, and calls release when the answer is sent.
func (s *Server) Serve(ctx context.Context, sockets func() (list []Socket, release func())) error {
	var clients sync.WaitGroup
	defer clients.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.listener.SetDeadline(past) })
	defer stop()
	slots := make(chan struct{}, maxClients)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := s.listener.AcceptUnix()
		switch {
		case err == nil:
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return nil
		case !passing(err):
			return fmt.Errorf("accept on %s: %w", s.path, err)
		default:
			<-slots
			s.report(fmt.Errorf("accept on %s: %w", s.path, err))
			pause(ctx, 100*time.Millisecond)
			continue
		}
		clients.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			if err := serve(ctx, conn, sockets); err != nil && ctx.Err() == nil {
				s.report(fmt.Errorf("serve %s: %w", s.path, err))
			}
		})
	}
}

// Close stops listening, and removes the path if it is still this server's own. Call it after Serve has returned,
// or to make it return.
func (s *Server) Close() error {
	err := s.listener.Close()
	if at, statErr := os.Lstat(s.path); statErr == nil && os.SameFile(at, s.file) {
		err = errors.Join(err, os.Remove(s.path))
	}
	return err
}

func (s *Server) report(err error) {
	if s.OnError != nil {
		s.OnError(err)
	}
}

// passing reports an error of accept(2) that does not concern the listener.
func passing(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
