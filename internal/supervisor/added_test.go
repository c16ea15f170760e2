package supervisor_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/internal/sys"
)

// other is an address of this service beside that of "http".
func (s *service) other(port int) string {
	return strings.Replace(s.addr, ":8080", fmt.Sprint(":", port), 1)
}

// Who connects to a socket that a reload adds, before the new worker serves, is answered by that one: the old one, which
// drains for long, does not have the socket.
func TestEarlyClientOfAddedSocket(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	drain := "[drain]\ndivert = \"steer\"\nsettle = \"20ms\"\ntimeout = \"1h\"\n"
	s.configure(drain)
	s.arguments("-ignore-term")
	s.start()
	s.configure(drain + fmt.Sprintf("[[socket]]\nname = \"http\"\nlisten = \"ADDR\"\n[[socket]]\nname = \"more\"\nlisten = %q\n[[socket]]\nname = \"path\"\nlisten = \"unix:%s/path\"\n", s.other(8081), s.dir))
	s.arguments("-start-delay=500ms")
	done := make(chan control.Result, 1)
	go func() {
		r, err := s.try(false)
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	var conn net.Conn
	s.eventually(func() string {
		var err error
		if conn, err = net.Dial("tcp", s.other(8081)); err != nil {
			return err.Error()
		}
		return ""
	})
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil || !strings.Contains(string(answer), "gen=2") {
		t.Errorf("answer %q, %v", answer, err)
	}
	if r := <-done; !r.OK {
		t.Error(r.Error)
	}
	s.eventually(func() string {
		if g := s.status().Generations[1]; g.State != "draining" || g.Phase != "signal" {
			return fmt.Sprintf("the old generation is %s: %s", g.State, g.Phase)
		}
		return ""
	})
	if w := s.warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
}

// What the old worker has accepted from a socket that a reload drops is waited for, and nobody else comes to it.
func TestDroppedSocket(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	drain := "[drain]\nsettle = \"10ms\"\ntimeout = \"5s\"\nidle = \"20s\"\n"
	table := func(name, listen string) string {
		return fmt.Sprintf("[[socket]]\nname = %q\nlisten = %q\n", name, listen)
	}
	path := s.dir + "/path"
	s.configure(drain + table("http", s.addr) + table("more", s.other(8081)) + table("path", "unix:"+path))
	s.arguments("-drain=abrupt")
	s.start()
	load := s.load()
	answers := make(chan error)
	for network, addr := range map[string]string{"tcp": s.other(8081), "unix": path} {
		conn, err := net.Dial(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(limit))
		go func() {
			answer, err := request(conn, "/slow?ms=2000")
			if err != nil || !strings.HasSuffix(answer, " gen=1") {
				err = fmt.Errorf("%s: answer %q, %w", network, answer, err)
			}
			answers <- err
		}()
	}
	s.accepted(2, sys.Socket{Network: "tcp", Host: s.host(), Port: 8081}, sys.Socket{Network: "unix", Address: path})
	s.configure(drain)
	s.must()
	for network, addr := range map[string]string{"tcp": s.other(8081), "unix": path} {
		if _, err := net.Dial(network, addr); err == nil {
			t.Errorf("%s is there", addr)
		}
	}
	for range 2 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	s.settled()
	load.end()
	if w := s.warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	s.stop()
}
