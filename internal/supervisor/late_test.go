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

// deferring is a service whose listener gives out a connection only when its first bytes are there: until then the
// handshake is not complete.
func deferring(t *testing.T) *service {
	s := newService(t, "[[socket]]\nname = \"http\"\nlisten = \"ADDR\"\ndefer_accept = \"60s\"\n")
	s.start()
	s.settled()
	return s
}

// halfOpen connects to the service and sends nothing.
func (s *service) halfOpen() net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(limit + 20*time.Second))
	return conn
}

// answered sends the request of a connection, which the generation must answer.
func (s *service) answered(conn net.Conn, generation int) {
	s.t.Helper()
	answer, err := request(conn, "/")
	if want := fmt.Sprint(" gen=", generation); err != nil || !strings.HasSuffix(answer, want) {
		s.t.Errorf("answered by %q, %v; want %s", answer, err, want)
	}
}

// half is the number of a socket in the store.
func (s *service) half(name string) int {
	s.t.Helper()
	for _, e := range s.manager.Entries() {
		if e.Name == name {
			return e.FD.Num()
		}
	}
	s.t.Fatalf("%s is not stored", name)
	return -1
}

// A handshake that is completed when the generation that it began with has gone is answered by one more generation, also
// if no supervisor runs at that moment.
func TestLateHandshake(t *testing.T) {
	t.Parallel()
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprintf("supervisor away=%v", away), func(t *testing.T) {
			t.Parallel()
			s := deferring(t)
			load := s.load()
			conn := s.halfOpen()
			s.reload()
			s.settled()
			if away {
				s.kill()
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				s.answered(conn, 3)
			}()
			if away {
				first := s.half("supervisor.socket.http")
				s.eventually(func() string {
					if waits, err := sys.Readable(first); !waits || err != nil {
						return fmt.Sprintf("nobody waits at the idle half, %v", err)
					}
					return ""
				})
				s.start()
			}
			<-done
			s.settled()
			if n := len(s.warnings("left connections waiting")); n != 1 {
				t.Errorf("%d warnings: %q", n, s.warnings())
			}
			load.end()
			s.stop()
		})
	}
}

// What arrives at the idle half of a pair is answered, with growing pauses: clients that complete one handshake after the
// other, each when nobody accepts there any more, do not have the worker replaced without end. Whoever has one of the
// sockets could steer there.
func TestNoHalfIsDeaf(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			s := newService(t, "[[socket]]\nname = \"http\"\nlisten = \""+network+":ADDR\"\n")
			s.start()
			for i, pause := range []string{"", "100ms", "200ms"} {
				_, n := s.settled()
				if err := divert.Steer(s.half("supervisor.socket.http"), 1-i%2); err != nil {
					t.Fatal(err)
				}
				if network == "udp" {
					conn, err := net.Dial("udp", s.addr)
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					conn.SetDeadline(time.Now().Add(limit))
					size, answer := 0, make([]byte, 100)
					if _, err = conn.Write([]byte("x")); err == nil {
						size, err = conn.Read(answer)
					}
					if want := fmt.Sprintf(" gen=%d x", n+1); err != nil || !strings.HasSuffix(string(answer[:size]), want) {
						t.Errorf("answered by %q, %v; want %s", answer[:size], err, want)
					}
				} else {
					s.answered(s.halfOpen(), n+1)
				}
				if pause != "" && len(s.warnings("is replaced in "+pause)) != 1 {
					t.Errorf("replacement %d: %q", i, s.warnings("replaced in"))
				}
			}
			s.settled()
			s.stop()
		})
	}
}
