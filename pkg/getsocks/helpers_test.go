package getsocks_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/leaktest"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/getsocks"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }

// pair returns two connected unix stream sockets that are closed at the end of the test.
func pair(tb testing.TB) (a, b *net.UnixConn) {
	tb.Helper()
	fa, fb, err := sys.Socketpair(syscall.SOCK_STREAM)
	if err != nil {
		tb.Fatal(err)
	}
	conns := make([]*net.UnixConn, 2)
	for i, fd := range []*sys.FD{fa, fb} {
		if conns[i], err = sys.UnixConn(fd); err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { conns[i].Close() })
	}
	return conns[0], conns[1]
}

// peer runs script at the other end of the returned connection; the end is closed when the script returns,
// and the test waits for that.
func peer(tb testing.TB, script func(c *net.UnixConn)) *net.UnixConn {
	tb.Helper()
	client, server := pair(tb)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer server.Close()
		script(server)
	}()
	tb.Cleanup(func() {
		client.Close()
		<-ended
	})
	return client
}

func patient(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	tb.Cleanup(cancel)
	return ctx
}

func readRequest(c *net.UnixConn) {
	io.ReadFull(c, make([]byte, len("_getsocks\n")))
}

func readAck(c *net.UnixConn) (uint32, error) {
	var b [4]byte
	_, err := io.ReadFull(c, b[:])
	return binary.NativeEndian.Uint32(b[:]), err
}

func number(n int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }

// plain is the metadata of n sockets without names.
func plain(n int) []byte { return make([]byte, 6*n) }

func send(c *net.UnixConn, p []byte, fds ...*sys.FD) {
	nums := make([]int, len(fds))
	for i, fd := range fds {
		nums[i] = fd.Num()
	}
	sys.WriteMessage(c, p, nums)
}

// listeners returns n TCP listeners of this process, closed at the end of the test.
func listeners(tb testing.TB, n int) []*sys.FD {
	tb.Helper()
	fds := make([]*sys.FD, n)
	for i := range fds {
		fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { fd.Close() })
		fds[i] = fd
	}
	return fds
}

func sockets(fds []*sys.FD) []getsocks.Socket {
	list := make([]getsocks.Socket, len(fds))
	for i, fd := range fds {
		list[i].FD = fd
	}
	return list
}

// identities returns the cookies of the sockets, in order.
func identities(tb testing.TB, list []getsocks.Socket) []uint64 {
	tb.Helper()
	var ids []uint64
	for _, s := range list {
		info, err := sys.Inspect(s.FD.Num())
		if err != nil {
			tb.Fatal(err)
		}
		ids = append(ids, info.Cookie)
	}
	return ids
}

// openSockets counts this process's descriptors that are sockets or pipes: what a leak would add to.
func openSockets(tb testing.TB) int {
	tb.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err == nil && (strings.HasPrefix(target, "socket:") || strings.HasPrefix(target, "pipe:")) {
			n++
		}
	}
	return n
}

// waitFor polls for something that another process does and that no event announces.
func waitFor(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(15 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatal("timed out waiting for " + what)
		}
	}
}

var ports atomic.Int32

// freePort is a port that nobody listens on, different each time, and none that the kernel gives to a client.
func freePort(tb testing.TB) int {
	tb.Helper()
	for range 1000 {
		port := 10000 + (os.Getpid()*16+int(ports.Add(1)))%20000
		fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1", Port: uint32(port)})
		if err == nil {
			fd.Close()
			return port
		}
	}
	tb.Fatal("no port is free")
	return 0
}

func text(format string, args ...any) []byte { return fmt.Appendf(nil, format, args...) }
