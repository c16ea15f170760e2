package getsocks_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/getsocks"
)

// serving answers with list at the other end of the returned connection, and delivers the server's error.
func serving(tb testing.TB, list []getsocks.Socket) (*net.UnixConn, <-chan error) {
	result := make(chan error, 1)
	c := peer(tb, func(c *net.UnixConn) { result <- getsocks.Serve(patient(tb), c, list) })
	return c, result
}

func TestServeIsWhatFetchReads(t *testing.T) {
	held := listeners(t, 3)
	many := make([]getsocks.Socket, 1100)
	for i := range many {
		many[i] = getsocks.Socket{FD: held[i%3]}
	}
	long := make([]getsocks.Socket, 300)
	for i := range long {
		long[i] = getsocks.Socket{FD: held[i%3], Namespace: strings.Repeat("n", i%256), Interface: strings.Repeat("i", 255-i%256)}
	}
	for name, list := range map[string][]getsocks.Socket{
		"none": nil, "one": many[:1], "251": many[:251], "252": many[:252], "253": many[:253], "504": many[:504], "1100": many, "long names": long,
	} {
		t.Run(name, func(t *testing.T) {
			c, served := serving(t, list)
			got, err := getsocks.FetchConn(patient(t), c)
			if err != nil {
				t.Fatal(err)
			}
			defer getsocks.CloseAll(got)
			if diff := cmp.Diff(identities(t, list), identities(t, got)); diff != "" {
				t.Errorf("sockets (-want +got):\n%s", diff)
			}
			for i := range got {
				if got[i].Namespace != list[i].Namespace || got[i].Interface != list[i].Interface {
					t.Fatalf("names of socket %d are %q and %q", i, got[i].Namespace, got[i].Interface)
				}
			}
			if err := <-served; err != nil {
				t.Errorf("serve: %v", err)
			}
		})
	}
}

func TestServeBytes(t *testing.T) {
	held := listeners(t, 2)
	c, served := serving(t, []getsocks.Socket{{FD: held[0], Interface: "lo"}, {FD: held[1], Namespace: "raha"}})
	if _, err := io.WriteString(c, " _getsocks extra words ; \r\n"); err != nil {
		t.Fatal(err)
	}
	count := make([]byte, 4)
	if _, err := io.ReadFull(c, count); err != nil || !bytes.Equal(count, number(2)) {
		t.Fatalf("count is % x (%v)", count, err)
	}
	buf := make([]byte, 100)
	m, err := sys.ReadMessage(c, buf)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.CloseAll(m.FDs)
	want := []byte("\x00\x02lo\x00\x00\x00\x00" + "\x04raha\x00\x00\x00\x00\x00")
	if !bytes.Equal(buf[:m.N], want) || len(m.FDs) != 2 {
		t.Errorf("got %d descriptors and % x, want 2 and % x", len(m.FDs), buf[:m.N], want)
	}
	if _, err := c.Write([]byte("any4")); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
	if n, err := c.Read(buf); n != 0 || err != io.EOF {
		t.Errorf("read %d bytes and %v after the answer, want the end", n, err)
	}
}

func TestServeErrors(t *testing.T) {
	held := listeners(t, 1)
	closed := sys.NewFD(-1)
	many := make([]getsocks.Socket, 300)
	for i := range many {
		many[i].FD = held[0]
	}
	for _, tc := range []struct {
		name   string
		list   []getsocks.Socket
		client func(c *net.UnixConn)
		want   string
	}{
		{"no request", nil, func(*net.UnixConn) {}, "EOF"},
		{"half a request", nil, func(c *net.UnixConn) { io.WriteString(c, "_gets") }, "EOF"},
		{"another request", nil, func(c *net.UnixConn) { io.WriteString(c, "show info\n") }, `unknown request "show info\n"`},
		{"an empty line", nil, func(c *net.UnixConn) { io.WriteString(c, "\n") }, "unknown request"},
		{"an endless request", nil, func(c *net.UnixConn) { c.Write(bytes.Repeat([]byte("x"), 5000)) }, "buffer full"},
		{"gone before the first acknowledgement", many, func(c *net.UnixConn) {
			io.WriteString(c, "_getsocks\n")
			io.ReadFull(c, make([]byte, 4))
		}, "of 300"},
		{"a closed socket", []getsocks.Socket{{FD: closed}}, func(c *net.UnixConn) { io.WriteString(c, "_getsocks\n") }, "closed"},
		{"a long name", []getsocks.Socket{{FD: held[0], Namespace: strings.Repeat("x", 256)}},
			func(c *net.UnixConn) { io.WriteString(c, "_getsocks\n") }, "256 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, served := serving(t, tc.list)
			tc.client(c)
			c.CloseWrite()
			if tc.name == "gone before the first acknowledgement" {
				c.Close()
			}
			if err := <-served; err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one that says %q", err, tc.want)
			}
		})
	}
}

// TestServeSilentClient: a client that sends nothing, or does not acknowledge, is given up on when ctx ends.
func TestServeSilentClient(t *testing.T) {
	held := listeners(t, 1)
	for _, request := range []string{"", "_getsocks\n"} {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
		defer cancel()
		client, server := pair(t)
		io.WriteString(client, request)
		if err := getsocks.Serve(ctx, server, sockets(held)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %q: error %v, want the context's", request, err)
		}
	}
}

func TestServer(t *testing.T) {
	held := listeners(t, 2)
	path := filepath.Join(t.TempDir(), "getsocks.sock")
	s, err := getsocks.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 10)
	s.OnError = func(err error) { failed <- err }
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the socket is %v (%v), want 0600", info.Mode(), err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	released := make(chan int, 10)
	served := make(chan error, 1)
	go func() {
		served <- s.Serve(ctx, func() ([]getsocks.Socket, func()) {
			return sockets(held), func() { released <- 1 }
		})
	}()
	for range 3 {
		got, err := getsocks.Fetch(patient(t), path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(identities(t, sockets(held)), identities(t, got)); diff != "" {
			t.Errorf("sockets (-want +got):\n%s", diff)
		}
		getsocks.CloseAll(got)
		<-released
	}
	bad, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(bad, "help\n")
	if err := <-failed; !strings.Contains(err.Error(), "unknown request") {
		t.Errorf("reported %v", err)
	}
	bad.Close()
	// A silent client does not hold up the end.
	silent, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	cancel()
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the path is still there: %v", err)
	}
}

func TestListenReplacesAndCloseSpares(t *testing.T) {
	path := filepath.Join(t.TempDir(), "getsocks.sock")
	first, err := getsocks.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	second, err := getsocks.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("closing the first server removed the second one's path: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := getsocks.Listen(path); err == nil {
		s.Close()
		t.Error("a file that is not a socket was replaced")
	}
	if left, _ := filepath.Glob(path + ".*"); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestServePair(t *testing.T) {
	held := listeners(t, 2)
	ours, theirs := pair(t)
	served := make(chan error, 1)
	go func() {
		served <- getsocks.ServePair(patient(t), ours, func() []getsocks.Socket { return sockets(held) })
	}()
	theirs.Write([]byte("noise"))
	for range 3 {
		a, b, err := sys.Socketpair(1)
		if err != nil {
			t.Fatal(err)
		}
		send(theirs, []byte{0, 0}, b)
		b.Close()
		c, err := sys.UnixConn(a)
		if err != nil {
			t.Fatal(err)
		}
		got, err := getsocks.FetchConn(patient(t), c)
		c.Close()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(identities(t, sockets(held)), identities(t, got)); diff != "" {
			t.Errorf("sockets (-want +got):\n%s", diff)
		}
		getsocks.CloseAll(got)
	}
	// A listener in the place of a connection is refused, and stays as it is.
	send(theirs, []byte{0, 0}, held[0])
	theirs.Close()
	if err := <-served; err == nil || !strings.Contains(err.Error(), "want a connected unix stream socket") {
		t.Errorf("serve: %v", err)
	}
	if on, err := sys.Nonblock(held[0].Num()); on || err != nil {
		t.Errorf("O_NONBLOCK of the listener is %v (%v)", on, err)
	}
}

func TestServePairEndsWithItsContext(t *testing.T) {
	ours, _ := pair(t)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- getsocks.ServePair(ctx, ours, func() []getsocks.Socket { return nil }) }()
	cancel()
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}
