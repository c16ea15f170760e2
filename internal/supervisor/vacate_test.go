package supervisor_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/divert"
	"github.com/8265a91a/supervisor/internal/sys"
)

// abrupt is a worker that ends on its signal with whatever it has in hand, and is waited for until it has nothing.
func abrupt(t *testing.T, idle string) *service {
	s := newService(t, fmt.Sprintf("[drain]\nsettle = \"10ms\"\ntimeout = \"5s\"\nidle = %q\n", idle))
	s.arguments("-drain=abrupt")
	s.start()
	s.settled()
	return s
}

// idled is what the step idle says of the drain of generation n.
func (s *service) idled(n int) (note string) {
	s.t.Helper()
	for _, h := range s.status().Handoffs {
		for _, step := range h.Steps {
			if h.From == n && step.Name == "idle" {
				note = step.Note
			}
		}
	}
	return note
}

// host is the service's address without the port.
func (s *service) host() string {
	host, _, _ := strings.Cut(s.addr, ":")
	return host
}

// accepted waits until the serving generation has n connections from the sockets.
func (s *service) accepted(n int, from ...sys.Socket) {
	s.t.Helper()
	pid, _ := s.serving()
	s.eventually(func() string {
		if have, err := divert.Connections([]int{pid}, from); have != n || err != nil {
			return fmt.Sprintf("worker %d has %d connections, not %d, %v", pid, have, n, err)
		}
		return ""
	})
}

// Three reloads in quick succession need the half of each pair on which the first generation still answers: it is told to
// stop when it has.
func TestQuickReloads(t *testing.T) {
	t.Parallel()
	s := abrupt(t, "8s")
	answers := make(chan error)
	for n := range 4 {
		go func() {
			answer, err := askPath(s.addr, "/slow?ms=1000")
			if err != nil || !strings.HasSuffix(answer, fmt.Sprint(" gen=", n+1)) {
				err = fmt.Errorf("request to generation %d: %q, %w", n+1, answer, err)
			}
			answers <- err
		}()
		s.accepted(1, sys.Socket{Network: "tcp", Host: s.host(), Port: 8080})
		if n < 3 {
			s.must()
		}
	}
	for range 4 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	s.settled()
	for n := 1; n <= 3; n++ {
		if note := s.idled(n); note != "" {
			t.Errorf("generation %d: %s", n, note)
		}
	}
	s.stop()
}

// A client that keeps its connection holds up the reload that needs the place of its worker for a while, not for ever.
func TestVacateHasALimit(t *testing.T) {
	t.Parallel()
	s := abrupt(t, "1h")
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s.accepted(1, sys.Socket{Network: "tcp", Host: s.host(), Port: 8080})
	s.must()
	began := time.Now()
	s.must()
	if took := time.Since(began); took < 9*time.Second {
		t.Errorf("it was waited for %s", took)
	}
	s.settled()
	if note := s.idled(1); !strings.HasPrefix(note, "1 connections left after 1") || strings.Contains(note, "h") {
		t.Errorf("generation 1: %q", note)
	}
	s.stop()
}
