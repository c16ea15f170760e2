package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// server accepts on all sockets and answers.
type server struct {
	options  *options
	sockets  []socket
	draining atomic.Bool
	open     sync.WaitGroup // connections
	loops    sync.WaitGroup // what accepts, but for -accept=block
	mu       sync.Mutex
	stoppers []func()
	conns    map[net.Conn]bool
}

func (s *server) start() error {
	s.conns = map[net.Conn]bool{}
	switch s.options.accept {
	case "epoll", "nonblock":
		return s.startEpoll()
	case "never":
		return s.startNever()
	case "block":
		for _, k := range s.sockets {
			s.startBlocking(k)
		}
		return nil
	case "net":
		for _, k := range s.sockets {
			if err := s.startNet(k); err != nil {
				return fmt.Errorf("%s: %w", k.address, err)
			}
		}
		return nil
	}
	return fmt.Errorf("unknown -accept %q", s.options.accept)
}

func (s *server) startNet(k socket) error {
	f := os.NewFile(uintptr(k.fd), k.name)
	if k.datagram {
		conn, err := net.FilePacketConn(f)
		if err != nil {
			return err
		}
		s.stoppers = append(s.stoppers, func() { conn.Close(); f.Close() }) // or the garbage collector closes f
		go s.echo(func(buf []byte) (int, func([]byte), error) {
			n, from, err := conn.ReadFrom(buf)
			return n, func(b []byte) { _, _ = conn.WriteTo(b, from) }, err
		})
		return nil
	}
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	s.stoppers = append(s.stoppers, func() { l.Close(); f.Close() })
	s.loops.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.serve(conn)
		}
	})
	return nil
}

// startBlocking needs the socket to be blocking, as it arrives from systemd, and complains when it is not.
func (s *server) startBlocking(k socket) {
	if k.datagram {
		go s.echo(func(buf []byte) (int, func([]byte), error) {
			n, from, err := syscall.Recvfrom(k.fd, buf, 0)
			return n, func(b []byte) { _ = syscall.Sendto(k.fd, b, 0, from) }, err
		})
		return
	}
	go func() {
		for !s.draining.Load() {
			fd, _, err := syscall.Accept4(k.fd, syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK)
			switch {
			case err == nil:
				s.serveFD(fd)
			case errors.Is(err, syscall.EAGAIN):
				fmt.Fprintf(os.Stderr, "worker: error: %s became non-blocking\n", k.address)
				os.Exit(1)
			case !errors.Is(err, syscall.EINTR) && !errors.Is(err, syscall.ECONNABORTED):
				return
			}
		}
	}()
}

func (s *server) startNever() error {
	ep, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	for _, k := range s.sockets {
		if err == nil {
			err = syscall.EpollCtl(ep, syscall.EPOLL_CTL_ADD, k.fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(k.fd)})
		}
	}
	return err
}

// startEpoll serves any number of sockets from one loop. With -accept=epoll it makes them non-blocking.
func (s *server) startEpoll() error {
	ep, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	for i, k := range s.sockets {
		if s.options.accept == "epoll" {
			if err := syscall.SetNonblock(k.fd, true); err != nil {
				return err
			}
		}
		event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(i)}
		if err := syscall.EpollCtl(ep, syscall.EPOLL_CTL_ADD, k.fd, &event); err != nil {
			return fmt.Errorf("epoll_ctl %s: %w", k.address, err)
		}
	}
	s.loops.Go(func() {
		events := make([]syscall.EpollEvent, 256)
		for !s.draining.Load() {
			n, err := syscall.EpollWait(ep, events, 50)
			if err != nil && !errors.Is(err, syscall.EINTR) {
				return
			}
			for _, e := range events[:max(n, 0)] {
				s.ready(s.sockets[e.Fd])
			}
		}
	})
	return nil
}

func (s *server) ready(k socket) {
	if k.datagram {
		buf := make([]byte, 2048)
		if n, from, err := syscall.Recvfrom(k.fd, buf, 0); err == nil {
			_ = syscall.Sendto(k.fd, append([]byte(s.identity()+" "), buf[:n]...), 0, from)
		}
		return
	}
	if fd, _, err := syscall.Accept4(k.fd, syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK); err == nil {
		s.serveFD(fd)
	}
}

func (s *server) serveFD(fd int) {
	f := os.NewFile(uintptr(fd), "connection")
	conn, err := net.FileConn(f)
	f.Close()
	if err == nil {
		s.serve(conn)
	}
}

func (s *server) echo(receive func([]byte) (int, func([]byte), error)) {
	buf := make([]byte, 2048)
	for {
		n, reply, err := receive(buf)
		if err != nil {
			return
		}
		reply(append([]byte(s.identity()+" "), buf[:n]...))
	}
}

func (s *server) identity() string {
	return fmt.Sprintf("pid=%d gen=%s", os.Getpid(), s.options.generation)
}

func (s *server) serve(conn net.Conn) {
	s.mu.Lock()
	s.conns[conn] = false
	s.mu.Unlock()
	s.open.Go(func() {
		defer func() {
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
			conn.Close()
		}()
		in := bufio.NewReader(conn)
		for {
			request, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			last := request.Close || s.draining.Load()
			if err := respond(conn, s.body(request), last); err != nil || last {
				return
			}
			s.mu.Lock()
			s.conns[conn] = true
			s.mu.Unlock()
		}
	})
}

func respond(w io.Writer, body string, last bool) error {
	connection := "keep-alive"
	if last {
		connection = "close"
	}
	_, err := fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n%s", len(body), connection, body)
	return err
}

func (s *server) body(r *http.Request) string {
	var b strings.Builder
	b.WriteString(s.identity() + "\n")
	switch r.URL.Path {
	case "/slow":
		ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
		time.Sleep(time.Duration(ms) * time.Millisecond)
	case "/sockets":
		for i, k := range s.sockets {
			fmt.Fprintf(&b, "%d %q %s %s%s\n", i, k.name, k.address, k.mode(), k.options())
		}
	case "/child":
		b.WriteString("child: " + s.child(r.URL.Query().Get("ms")) + "\n")
	case "/env":
		b.WriteString(strings.Join(os.Environ(), "\n") + "\n")
	}
	return b.String()
}

// child starts a child that lives for a while, waits for its end, and says how it ended.
func (s *server) child(ms string) string {
	self, err := os.Executable()
	if err == nil {
		err = exec.Command(self, "-sleep="+ms+"ms").Run()
	}
	return fmt.Sprint(err)
}

// drain stops accepting and ends the connections as -drain says.
func (s *server) drain() {
	s.draining.Store(true)
	for _, stop := range s.stoppers {
		stop()
	}
	if s.options.shutdown {
		for _, k := range s.sockets {
			_ = syscall.Shutdown(k.fd, syscall.SHUT_RDWR)
		}
	}
	time.Sleep(s.options.stopping)
	waitWhile(s.options.drainWhile)
	if s.options.drain == "abrupt" {
		return
	}
	s.loops.Wait() // what was accepted a moment ago is served too
	// A connection that has not sent its first request yet is given 5 s for it, an idle one that was answered before
	// keeps 2 s for its next: then it is told to close in the answer, which no client loses.
	s.mu.Lock()
	for conn, answered := range s.conns {
		wait := 5 * time.Second
		if answered {
			wait = 2 * time.Second
		}
		_ = conn.SetReadDeadline(time.Now().Add(wait))
	}
	s.mu.Unlock()
	s.open.Wait()
}
