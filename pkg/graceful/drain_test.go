package graceful_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/pkg/fdstore"
	"github.com/8265a91a/supervisor/pkg/graceful"
)

const request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// long is a bound that a test does not reach.
const long = 30 * time.Second

// server is a worker that runs in this process.
type server struct {
	*graceful.Worker
	address string
	stop    context.CancelFunc
	ended   chan error
}

// serve runs a worker that serves HTTP with h, and what more adds.
func serve(t *testing.T, o graceful.Options, h *http.Server, more func(w *graceful.Worker)) server {
	t.Helper()
	w, err := graceful.New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := w.Listen("web", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.HTTP(l, h)
	if more != nil {
		more(w)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := server{w, l.Addr().String(), cancel, make(chan error, 1)}
	go func() { s.ended <- w.Run(ctx) }()
	return s
}

// wait returns what Run returned.
func (s server) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(2 * long):
		t.Fatal("Run does not return")
		return nil
	}
}

// dial connects and sends text.
func (s server) dial(t *testing.T, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(2 * long)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestDrainWaits checks which connections a drain waits for. A wait that is not meant would last until the time-out,
// which is an error.
func TestDrainWaits(t *testing.T) {
	const short = 200 * time.Millisecond
	tests := map[string]struct {
		sent    string // before the drain
		during  string // after it began
		options graceful.Options
		least   time.Duration
		answer  string
		fails   bool
	}{
		"nothing sent":       {"", "", graceful.Options{Idle: long, Grace: short, Timeout: long}, short, "", false},
		"sent late":          {"", request, graceful.Options{Idle: long, Grace: long, Timeout: long}, 0, "200 OK", false},
		"half a request":     {"GET / HTTP/1.1\r\n", "Host: x\r\n\r\n", graceful.Options{Idle: long, Grace: long, Timeout: long}, 0, "200 OK", false},
		"idle":               {request, "", graceful.Options{Idle: short, Grace: long, Timeout: long}, short, "", false},
		"idle, asks again":   {request, request, graceful.Options{Idle: long, Grace: long, Timeout: long}, 0, "200 OK", false},
		"handler takes time": {"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n", "", graceful.Options{Idle: 1, Grace: 1, Timeout: long}, short, "200 OK", false},
		"handler never ends": {"GET /never HTTP/1.1\r\nHost: x\r\n\r\n", "", graceful.Options{Idle: 1, Grace: 1, Timeout: short}, short, "", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			accepted, idle, handled := make(chan bool, 1), make(chan bool, 4), make(chan bool, 4)
			hook := func(_ net.Conn, state http.ConnState) {
				switch state {
				case http.StateNew:
					accepted <- true
				case http.StateIdle:
					idle <- true
				}
			}
			s := serve(t, test.options, &http.Server{ConnState: hook, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				handled <- true
				switch r.URL.Path {
				case "/slow":
					time.Sleep(2 * short)
				case "/never":
					<-r.Context().Done()
				}
			})}, nil)
			c := s.dial(t, test.sent)
			<-accepted
			switch {
			case test.sent == request:
				if _, err := c.Read(make([]byte, 4096)); err != nil {
					t.Fatal(err)
				}
				<-idle
			case strings.HasSuffix(test.sent, "\r\n\r\n"):
				<-handled
			}
			begun := time.Now()
			s.stop()
			<-s.Draining()
			if _, err := io.WriteString(c, test.during); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(c)
			if err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the connection was not closed: %v", err)
			}
			if err := s.wait(t); (err != nil) != test.fails {
				t.Errorf("drained: %v", err)
			}
			if took := time.Since(begun); took < test.least {
				t.Errorf("drained in %v, want %v at least", took, test.least)
			}
			if !strings.Contains(string(answer), test.answer) || (len(answer) > 0) != (test.answer != "") {
				t.Errorf("answer %q", answer)
			}
			if test.during != "" && !strings.Contains(string(answer), "Connection: close") {
				t.Errorf("answer without a goodbye: %q", answer)
			}
		})
	}
}

// TestIdleBeginsWithTheAnswer: a handler that had begun before the drain says nothing of a close, so the client may send
// its next request as after any other answer.
func TestIdleBeginsWithTheAnswer(t *testing.T) {
	handled, release := make(chan bool, 2), make(chan bool)
	s := serve(t, graceful.Options{Idle: 500 * time.Millisecond, Timeout: long}, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		handled <- true
		<-release
	})}, nil)
	c := s.dial(t, request)
	<-handled
	s.stop()
	<-s.Draining()
	// This is how long the handler takes, not a wait for anything.
	time.Sleep(700 * time.Millisecond)
	close(release)
	if n, err := c.Read(make([]byte, 4096)); err != nil || n == 0 {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(c); err != nil || !strings.Contains(string(answer), "Connection: close") {
		t.Errorf("the next request: %q, %v", answer, err)
	}
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
}

// TestSecondSignal: SIGTERM twice in a row is one, SIGINT ends the drain.
func TestSecondSignal(t *testing.T) {
	handled, release := make(chan bool), make(chan bool)
	s := serve(t, graceful.Options{Timeout: long}, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		handled <- true
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})}, nil)
	kill := func(sig syscall.Signal) {
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
	}
	first, second := s.dial(t, request), s.dial(t, request)
	<-handled
	<-handled
	kill(syscall.SIGTERM)
	<-s.Draining()
	kill(syscall.SIGTERM)
	release <- true
	release <- true // had the second signal cut them, nobody would take this
	for _, c := range []net.Conn{first, second} {
		if n, err := c.Read(make([]byte, 4096)); err != nil || n == 0 {
			t.Errorf("the answer after two signals: %v", err)
		}
	}
	if _, err := io.WriteString(first, request); err != nil {
		t.Fatal(err)
	}
	<-handled
	kill(syscall.SIGINT)
	if err := s.wait(t); err == nil || !strings.Contains(err.Error(), "were cut") {
		t.Errorf("after SIGINT: %v", err)
	}
}

// TestGraceOfOldConnections: for net/http a connection is idle that has not sent a whole request for 5 s.
func TestGraceOfOldConnections(t *testing.T) {
	accepted := make(chan bool, 2)
	s := serve(t, graceful.Options{Idle: time.Millisecond, Grace: long, Timeout: long}, &http.Server{
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { io.WriteString(rw, "whole") }),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				accepted <- true
			}
		}}, nil)
	old := s.dial(t, "GET / HTTP/1.1\r\nHost: x\r\n")
	<-accepted
	// This is its age, not a wait for anything.
	time.Sleep(7 * time.Second)
	idle := s.dial(t, request)
	<-accepted
	if _, err := idle.Read(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	s.stop()
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the idle connection: %v", err)
	}
	// Now the time for idle ones is over.
	if _, err := io.WriteString(old, "\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(old); err != nil || !strings.HasSuffix(string(answer), "whole") {
		t.Errorf("the connection that is new for 7 s: %q, %v", answer, err)
	}
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
}

// TestSlowServiceStallsNoOther: the drain of HTTP is over while datagrams are still served.
func TestSlowServiceStallsNoOther(t *testing.T) {
	var packets net.PacketConn
	busy, release := make(chan bool), make(chan bool)
	s := serve(t, graceful.Options{Idle: time.Millisecond, Timeout: long}, &http.Server{Handler: http.NotFoundHandler()}, func(w *graceful.Worker) {
		var err error
		if packets, err = w.ListenPacket("packets", "udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		w.Packets(packets, func(c net.PacketConn) error {
			_, _, err := c.ReadFrom(make([]byte, 10))
			busy <- true
			<-release
			if err == nil {
				err = os.ErrDeadlineExceeded
			}
			return err
		})
	})
	u, err := net.Dial("udp", packets.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	fmt.Fprint(u, "hi")
	<-busy
	c := s.dial(t, request)
	if _, err := c.Read(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	s.stop()
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the idle connection was not closed: %v", err)
	}
	close(release)
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
}

// deaf returns a notify socket that nobody reads, with a full queue, and what reads it after all.
func deaf(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	store, err := fdstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		err = store.TryNotify("STATUS=full")
	}
	return c
}

// TestManagerDoesNotRead: requests are served, and a drain ends, while nobody reads the notify socket.
func TestManagerDoesNotRead(t *testing.T) {
	deaf(t)
	t.Setenv("WATCHDOG_USEC", "1000")
	said := make(chan error, 1)
	var w *graceful.Worker
	s := serve(t, graceful.Options{Idle: time.Millisecond, Timeout: long}, &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		begun := time.Now()
		err := w.Status("busy")
		if took := time.Since(begun); took > 900*time.Millisecond {
			err = fmt.Errorf("Status took %v: %w", took, err)
		}
		said <- err
	})}, func(worker *graceful.Worker) { w = worker })
	c := s.dial(t, request)
	if err := <-said; !errors.Is(err, fdstore.ErrBusy) || strings.Contains(err.Error(), "took") {
		t.Errorf("status: %v", err)
	}
	if _, err := c.Read(make([]byte, 4096)); err != nil {
		t.Error(err)
	}
	if err := w.Keep("state", nil); !errors.Is(err, fdstore.ErrBusy) {
		t.Errorf("keep: %v", err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-s.Draining()
	if c, err := net.Dial("tcp", s.address); err == nil {
		c.Close()
		t.Error("the listener is open in the drain")
	}
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
}

// TestReadyWaitsForTheManager: a manager that was busy for long still gets READY=1.
func TestReadyWaitsForTheManager(t *testing.T) {
	c := deaf(t)
	s := serve(t, graceful.Options{}, &http.Server{Handler: http.NotFoundHandler()}, nil)
	buf := make([]byte, 4096)
	if err := c.SetReadDeadline(time.Now().Add(long)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond) // longer than one attempt
	for text := ""; text != "READY=1\n"; {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		text = string(buf[:n])
	}
	s.stop()
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
}
