package sys_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/8265a91a/supervisor/internal/sys"
)

// conns returns a connected pair of the given type, closed at the end of the test.
func conns(tb testing.TB, typ int) (a, b *net.UnixConn) {
	tb.Helper()
	fa, fb, err := sys.Socketpair(typ)
	if err != nil {
		tb.Fatal(err)
	}
	var list []*net.UnixConn
	for _, fd := range []*sys.FD{fa, fb} {
		c, err := sys.UnixConn(fd)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { c.Close() })
		list = append(list, c)
	}
	return list[0], list[1]
}

// repeat lends the same descriptor n times.
func repeat(fd *sys.FD, n int) []int {
	nums := make([]int, n)
	for i := range nums {
		nums[i] = fd.Num()
	}
	return nums
}

func TestMessageCarriesDescriptors(t *testing.T) {
	for _, typ := range []int{syscall.SOCK_STREAM, syscall.SOCK_SEQPACKET} {
		a, b := conns(t, typ)
		r, w, err := sys.Pipe()
		must(t, r, err)
		must(t, w, err)
		if err := sys.WriteMessage(a, []byte("hello"), []int{r.Num(), w.Num()}); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		m, err := sys.ReadMessage(b, buf)
		if err != nil {
			t.Fatal(err)
		}
		defer sys.CloseAll(m.FDs)
		if string(buf[:m.N]) != "hello" || len(m.FDs) != 2 || m.Truncated || m.Cred != nil {
			t.Fatalf("got %q and %+v", buf[:m.N], m)
		}
		for i, sent := range []*sys.FD{r, w} {
			if !same(t, sent, m.FDs[i]) {
				t.Errorf("descriptor %d is another one", i)
			}
			if on, err := sys.CloseOnExec(m.FDs[i].Num()); !on || err != nil {
				t.Errorf("descriptor %d is not close-on-exec (%v)", i, err)
			}
		}
		a.Close()
		if m, err := sys.ReadMessage(b, buf); m.N != 0 || err != nil {
			t.Errorf("at the end: %+v, %v", m, err)
		}
	}
}

func TestMaxRights(t *testing.T) {
	a, b := conns(t, syscall.SOCK_SEQPACKET)
	r, w, err := sys.Pipe()
	must(t, r, err)
	must(t, w, err)
	if err := sys.PassCredentials(b); err != nil {
		t.Fatal(err)
	}
	if err := sys.WriteMessage(a, []byte("x"), repeat(r, sys.MaxRights)); err != nil {
		t.Fatal(err)
	}
	m, err := sys.ReadMessage(b, make([]byte, 1))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.FDs) != sys.MaxRights || m.Cred == nil {
		t.Errorf("got %d descriptors and credentials %v", len(m.FDs), m.Cred)
	}
	sys.CloseAll(m.FDs)
	if err := sys.WriteMessage(a, []byte("x"), repeat(r, sys.MaxRights+1)); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("sending %d descriptors: %v, want EINVAL", sys.MaxRights+1, err)
	}
}

// TestEmptyMessageWithDescriptors: net calls it the end of the connection; the descriptors are there all the same.
func TestEmptyMessageWithDescriptors(t *testing.T) {
	a, b, err := sys.Socketpair(syscall.SOCK_SEQPACKET)
	must(t, a, err)
	c, err := sys.UnixConn(b)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := sys.SendRights(a, nil, []int{a.Num()}); err != nil {
		t.Fatal(err)
	}
	m, err := sys.ReadMessage(c, make([]byte, 1))
	defer sys.CloseAll(m.FDs)
	if err != nil || len(m.FDs) != 1 {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestPayloadLongerThanBuffer(t *testing.T) {
	a, b := conns(t, syscall.SOCK_SEQPACKET)
	if err := sys.WriteMessage(a, []byte("hello"), nil); err != nil {
		t.Fatal(err)
	}
	if m, err := sys.ReadMessage(b, make([]byte, 3)); err != nil || m.N != 3 || !m.Truncated {
		t.Errorf("got %+v, %v", m, err)
	}
}

// TestPartialWrite: a payload larger than the socket's buffer arrives whole, and its descriptors once.
func TestPartialWrite(t *testing.T) {
	a, b := conns(t, syscall.SOCK_STREAM)
	r, w, err := sys.Pipe()
	must(t, r, err)
	must(t, w, err)
	payload := bytes.Repeat([]byte("0123456789"), 200000)
	sent := make(chan error, 1)
	go func() {
		sent <- sys.WriteMessage(a, payload, []int{r.Num()})
		a.Close()
	}()
	var got []byte
	fds := 0
	for buf := make([]byte, 70000); ; {
		m, err := sys.ReadMessage(b, buf)
		if err != nil {
			t.Fatal(err)
		}
		if m.N == 0 {
			break
		}
		got = append(got, buf[:m.N]...)
		fds += len(m.FDs)
		sys.CloseAll(m.FDs)
	}
	if err := <-sent; err != nil || !bytes.Equal(got, payload) || fds != 1 {
		t.Errorf("got %d of %d bytes and %d descriptors (%v)", len(got), len(payload), fds, err)
	}
}

// TestTruncatedRights runs itself again with room for few descriptors: the kernel drops what does not fit.
func TestTruncatedRights(t *testing.T) {
	if os.Getenv("SYS_TEST_LIMITED") == "" {
		cmd := exec.Command("/bin/sh", "-c", `ulimit -n 40 && exec "$0" -test.run='^TestTruncatedRights$' -test.v -test.timeout=20s`, os.Args[0])
		cmd.Env = append(os.Environ(), "SYS_TEST_LIMITED=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	a, b, err := sys.Socketpair(syscall.SOCK_SEQPACKET)
	must(t, a, err)
	must(t, b, err)
	if err := sys.SendRights(a, []byte("x"), repeat(a, 60)); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	if m, err := sys.ReceiveRights(b, make([]byte, 1), false); !errors.Is(err, sys.ErrTruncated) || m.FDs != nil {
		t.Errorf("got %+v, %v", m, err)
	}
	after, err := os.ReadDir("/proc/self/fd")
	if err != nil || len(after) != len(before) {
		t.Errorf("%d descriptors are open, %d before (%v)", len(after), len(before), err)
	}
}

func TestCredentials(t *testing.T) {
	a, b := conns(t, syscall.SOCK_STREAM)
	if err := sys.PassCredentials(b); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	want := sys.Cred{PID: os.Getpid(), UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	m, err := sys.ReadMessage(b, make([]byte, 1))
	if err != nil || m.Cred == nil || *m.Cred != want {
		t.Errorf("sender is %+v (%v), want %+v", m.Cred, err, want)
	}
	if peer, err := sys.PeerCred(a); err != nil || peer != want {
		t.Errorf("peer is %+v (%v), want %+v", peer, err, want)
	}
}

func TestSendTo(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "notify"), "@sys-test-" + filepath.Base(t.TempDir())} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		r, w, err := sys.Pipe()
		must(t, r, err)
		must(t, w, err)
		if err := sys.SendTo(path, []byte("FDSTORE=1"), []int{r.Num()}); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 20)
		m, err := sys.ReadMessage(l, buf)
		if err != nil || string(buf[:m.N]) != "FDSTORE=1" || len(m.FDs) != 1 {
			t.Errorf("%s: got %q and %+v (%v)", path, buf[:m.N], m, err)
		}
		sys.CloseAll(m.FDs)
		l.Close()
	}
	if err := sys.SendTo(filepath.Join(t.TempDir(), "none"), []byte("x"), nil); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("sending to nobody: %v", err)
	}
}

func TestReceiveRights(t *testing.T) {
	a, b, err := sys.Socketpair(syscall.SOCK_SEQPACKET)
	must(t, a, err)
	must(t, b, err)
	buf := make([]byte, 10)
	if _, err := sys.ReceiveRights(b, buf, false); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("an empty queue: %v, want EAGAIN", err)
	}
	if err := sys.SendRights(a, []byte("name"), []int{a.Num()}); err != nil {
		t.Fatal(err)
	}
	for _, peek := range []bool{true, true, false} {
		m, err := sys.ReceiveRights(b, buf, peek)
		if err != nil || string(buf[:m.N]) != "name" || len(m.FDs) != 1 || !same(t, m.FDs[0], a) {
			t.Errorf("peek %v: %q and %+v (%v)", peek, buf[:m.N], m, err)
		}
		sys.CloseAll(m.FDs)
	}
	if _, err := sys.ReceiveRights(b, buf, true); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("the emptied queue: %v, want EAGAIN", err)
	}
	for range 100000 {
		if err = sys.SendRights(a, make([]byte, 1000), []int{a.Num()}); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.ETOOMANYREFS) {
		t.Errorf("a full queue: %v, want EAGAIN", err)
	}
}

func TestUnixConnTakesOwnership(t *testing.T) {
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "udp", Host: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	n := fd.Num()
	if c, err := sys.UnixConn(fd); err == nil {
		c.Close()
		t.Error("a UDP socket was taken for a unix socket")
	}
	if fd.Num() != -1 || open(n) {
		t.Error("the descriptor is still open")
	}
	if _, err := sys.UnixConn(sys.NewFD(-1)); err == nil {
		t.Error("a closed descriptor was taken")
	}
}

func TestDupConn(t *testing.T) {
	a, b := conns(t, syscall.SOCK_STREAM)
	dup, err := sys.DupConn(a)
	must(t, dup, err)
	a.Close()
	b.Write([]byte("x"))
	m, err := sys.ReceiveRights(dup, make([]byte, 1), false)
	if err != nil || m.N != 1 {
		t.Errorf("the duplicate of a closed connection: %+v, %v", m, err)
	}
}

func TestHungUp(t *testing.T) {
	a, b := conns(t, syscall.SOCK_STREAM)
	for _, step := range []struct {
		do   func() error
		want bool
	}{{func() error { return nil }, false}, {b.CloseWrite, false}, {b.Close, true}} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if hung, err := sys.ConnHungUp(a); hung != step.want || err != nil {
			t.Errorf("hung up is %v (%v), want %v", hung, err, step.want)
		}
	}
	if _, err := io.ReadAll(a); err != nil {
		t.Error(err)
	}
}
