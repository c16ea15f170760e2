package sys_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/8265a91a/supervisor/internal/sys"
)

func TestInspect(t *testing.T) {
	dir := t.TempDir()
	yes, no := true, false
	abstract := "@" + filepath.Base(filepath.Dir(dir))
	// Binding to one IPv6 address makes the kernel set IPV6_V6ONLY by itself, but for mapped ones.
	for _, tc := range []struct {
		name string
		spec sys.ListenSpec
		want sys.Socket
	}{
		{"tcp", sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"}, sys.Socket{Network: "tcp", Host: "127.0.0.1", Listening: true}},
		{"tcp6", sys.ListenSpec{Network: "tcp", Host: "::1", V6Only: &yes}, sys.Socket{Network: "tcp", Host: "::1", Listening: true, V6Only: true}},
		{"both families", sys.ListenSpec{Network: "tcp", V6Only: &no}, sys.Socket{Network: "tcp", Host: "::", Listening: true}},
		{"mapped", sys.ListenSpec{Network: "tcp", Host: "::ffff:127.0.0.1"}, sys.Socket{Network: "tcp", Host: "::ffff:127.0.0.1", Listening: true}},
		{"reuseport", sys.ListenSpec{Network: "tcp", Host: "127.0.0.1", ReusePort: true}, sys.Socket{Network: "tcp", Host: "127.0.0.1", Listening: true, ReusePort: true}},
		{"freebind", sys.ListenSpec{Network: "tcp", Host: "192.0.2.7", FreeBind: true}, sys.Socket{Network: "tcp", Host: "192.0.2.7", Listening: true, FreeBind: true}},
		{"freebind6", sys.ListenSpec{Network: "tcp", Host: "2001:db8::7", FreeBind: true}, sys.Socket{Network: "tcp", Host: "2001:db8::7", Listening: true, FreeBind: true, V6Only: true}},
		{"udp", sys.ListenSpec{Network: "udp", Host: "127.0.0.1"}, sys.Socket{Network: "udp", Host: "127.0.0.1"}},
		{"udp6", sys.ListenSpec{Network: "udp", Host: "::1"}, sys.Socket{Network: "udp", Host: "::1", V6Only: true}},
		{"unix", sys.ListenSpec{Network: "unix", Path: dir + "/s"}, sys.Socket{Network: "unix", Address: dir + "/s", Listening: true}},
		{"unixgram", sys.ListenSpec{Network: "unixgram", Path: dir + "/g"}, sys.Socket{Network: "unixgram", Address: dir + "/g"}},
		{"unixpacket", sys.ListenSpec{Network: "unixpacket", Path: dir + "/p"}, sys.Socket{Network: "unixpacket", Address: dir + "/p", Listening: true}},
		{"abstract", sys.ListenSpec{Network: "unix", Path: abstract}, sys.Socket{Network: "unix", Address: abstract, Listening: true}},
		{"abstract, padded", sys.ListenSpec{Network: "unix", Path: abstract + strings.Repeat("\x00", 107-len(abstract))}, sys.Socket{Network: "unix", Address: abstract, Listening: true}},
		{"abstract, with NULs", sys.ListenSpec{Network: "unix", Path: abstract + "\x00b\x00c"}, sys.Socket{Network: "unix", Address: abstract + "@b@c", Listening: true}},
		{"the longest path", sys.ListenSpec{Network: "unixgram", Path: "@" + strings.Repeat("x", 106)}, sys.Socket{Network: "unixgram", Address: "@" + strings.Repeat("x", 106)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fd, err := sys.OpenListener(tc.spec)
			if tc.spec.FreeBind && errors.Is(err, syscall.EADDRNOTAVAIL) || strings.Contains(tc.want.Host, ":") && errors.Is(err, syscall.EAFNOSUPPORT) {
				t.Skip(err)
			}
			must(t, fd, err)
			got, err := sys.Inspect(fd.Num())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, cmpopts.IgnoreFields(sys.Socket{}, "Cookie", "Inode", "Port", "Address")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			want := tc.want.Address
			if want == "" {
				want = net.JoinHostPort(tc.want.Host, fmt.Sprint(got.Port))
			}
			if got.Address != want || got.Port == 0 && tc.want.Host != "" {
				t.Errorf("address is %q (port %d), want %q", got.Address, got.Port, want)
			}
			if inode, err := sys.Inode(fd.Num()); err != nil || inode != got.Inode || got.Cookie == 0 {
				t.Errorf("inode %d (%v), cookie %d", inode, err, got.Cookie)
			}
			if is, err := sys.IsListener(fd.Num()); !is || err != nil {
				t.Errorf("is a listener: %v (%v)", is, err)
			}
			if on, err := sys.CloseOnExec(fd.Num()); !on || err != nil {
				t.Errorf("not close-on-exec (%v)", err)
			}
			if got.Stream() != got.Listening {
				t.Errorf("stream is %v", got.Stream())
			}
		})
	}
}

// TestInspectUnnamed: x/sys shows a socket without a name as "@".
func TestInspectUnnamed(t *testing.T) {
	for _, typ := range []int{syscall.SOCK_STREAM, syscall.SOCK_SEQPACKET} {
		a, b, err := sys.Socketpair(typ)
		must(t, a, err)
		must(t, b, err)
		if s, err := sys.Inspect(a.Num()); err != nil || s.Address != "" || s.Listening {
			t.Errorf("%+v (%v)", s, err)
		}
		if is, err := sys.IsListener(a.Num()); is || err != nil {
			t.Errorf("is a listener: %v (%v)", is, err)
		}
	}
	gram, err := net.DialUnix("unixgram", nil, notify(t))
	if err != nil {
		t.Fatal(err)
	}
	defer gram.Close()
	fd, err := sys.DupConn(gram)
	must(t, fd, err)
	if is, err := sys.IsListener(fd.Num()); is || err != nil {
		t.Errorf("a datagram socket without a name is a listener: %v (%v)", is, err)
	}
}

func notify(t *testing.T) *net.UnixAddr {
	t.Helper()
	addr := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"}
	l, err := net.ListenUnixgram("unixgram", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return addr
}

func TestInspectIsNoSocket(t *testing.T) {
	r, w, err := sys.Pipe()
	must(t, r, err)
	must(t, w, err)
	if _, err := sys.Inspect(r.Num()); !errors.Is(err, syscall.ENOTSOCK) {
		t.Errorf("a pipe: %v", err)
	}
	if _, err := sys.Inspect(-1); !errors.Is(err, syscall.EBADF) {
		t.Errorf("nothing: %v", err)
	}
}

// TestCookieIsIdentity: two sockets of one address differ, two descriptors of one socket do not.
func TestCookieIsIdentity(t *testing.T) {
	spec := sys.ListenSpec{Network: "tcp", Host: "127.0.0.1", ReusePort: true}
	first, err := sys.OpenListener(spec)
	must(t, first, err)
	info, err := sys.Inspect(first.Num())
	if err != nil {
		t.Fatal(err)
	}
	spec.Port = uint32(info.Port)
	sibling, err := sys.OpenListener(spec)
	must(t, sibling, err)
	dup, err := first.Dup()
	must(t, dup, err)
	other, err := sys.Inspect(sibling.Num())
	if err != nil || other.Cookie == info.Cookie || other.Address != info.Address {
		t.Errorf("sibling %+v of %+v (%v)", other, info, err)
	}
	if again, err := sys.Inspect(dup.Num()); err != nil || again != info {
		t.Errorf("duplicate %+v of %+v (%v)", again, info, err)
	}
	if cookie, err := sys.Cookie(dup.Num()); err != nil || cookie != info.Cookie {
		t.Errorf("cookie %d (%v), want %d", cookie, err, info.Cookie)
	}
}

func TestOpenListenerErrors(t *testing.T) {
	held, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	must(t, held, err)
	info, err := sys.Inspect(held.Num())
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		spec sys.ListenSpec
		want string
	}{
		{sys.ListenSpec{Network: "tcp", Host: "127.0.0.1", Port: uint32(info.Port)}, "address already in use"},
		{sys.ListenSpec{Network: "tcp", Host: "192.0.2.7"}, "cannot assign requested address"},
		{sys.ListenSpec{Network: "tcp", Host: "127.0.0.1", Port: 65536 + 80}, "beyond 65535"},
		{sys.ListenSpec{Network: "tcp", Host: "localhost"}, "unable to parse IP"},
		{sys.ListenSpec{Network: "tcp", Host: "fe80::1%nosuchinterface"}, "no such network interface"},
		{sys.ListenSpec{Network: "sctp"}, `unknown network "sctp"`},
		{sys.ListenSpec{Network: "unix", Path: "/nosuchdir/s"}, "no such file"},
		{sys.ListenSpec{Network: "unix", Path: "/" + strings.Repeat("x", 107)}, "108 bytes"},
		{sys.ListenSpec{Network: "unix"}, "0 bytes"},
	} {
		if fd, err := sys.OpenListener(tc.spec); err == nil || !strings.Contains(err.Error(), tc.want) {
			fd.Close()
			t.Errorf("%+v: %v, want an error that says %q", tc.spec, err, tc.want)
		}
	}
}

func TestBacklog(t *testing.T) {
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1", Backlog: 17})
	must(t, fd, err)
	info, err := sys.Inspect(fd.Num())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		c, err := net.Dial("tcp", info.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if used, limit, err := sys.Backlog(fd.Num()); used != i+1 || limit != 17 || err != nil {
			t.Errorf("backlog is %d of %d (%v), want %d of 17", used, limit, err, i+1)
		}
	}
	if err := sys.Listen(fd.Num(), 30); err != nil {
		t.Fatal(err)
	}
	if used, limit, err := sys.Backlog(fd.Num()); used != 3 || limit != 30 || err != nil {
		t.Errorf("after listen(30) the backlog is %d of %d (%v)", used, limit, err)
	}
	unix, err := sys.OpenListener(sys.ListenSpec{Network: "unix", Path: filepath.Join(t.TempDir(), "s")})
	must(t, unix, err)
	if _, _, err := sys.Backlog(unix.Num()); err == nil {
		t.Error("a unix socket has TCP_INFO")
	}
}

func TestSetReusePort(t *testing.T) {
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "udp", Host: "127.0.0.1"})
	must(t, fd, err)
	if err := sys.SetReusePort(fd.Num()); err != nil {
		t.Fatal(err)
	}
	if info, err := sys.Inspect(fd.Num()); !info.ReusePort || err != nil {
		t.Errorf("%+v (%v)", info, err)
	}
}

func TestVsock(t *testing.T) {
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "vsock", CID: 1<<32 - 1, Port: 1<<32 - 1})
	if err != nil {
		t.Skip("no vsock here: ", err)
	}
	must(t, fd, nil)
	info, err := sys.Inspect(fd.Num())
	if err != nil || info.Network != "vsock" || !info.Listening || info.Address != fmt.Sprintf("4294967295:%d", info.Port) || info.Port == 0 {
		t.Errorf("%+v (%v)", info, err)
	}
}

func TestRemoveStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := sys.RemoveStaleSocket(path); err != nil {
		t.Errorf("nothing there: %v", err)
	}
	for _, network := range []string{"unix", "unixpacket", "unixgram"} {
		fd, err := sys.OpenListener(sys.ListenSpec{Network: network, Path: path})
		must(t, fd, err)
		if err := sys.RemoveStaleSocket(path); err == nil {
			t.Errorf("a living %s socket was removed", network)
		}
		fd.Close()
		if err := sys.RemoveStaleSocket(path); err != nil {
			t.Errorf("a dead %s socket: %v", network, err)
		}
		os.Remove(path)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sys.RemoveStaleSocket(path); err == nil {
		t.Error("a file was removed")
	}
}

// The file that a socket is bound to stays its own when another takes its place.
func TestUnixFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "unix", Path: path})
	must(t, fd, err)
	inode, err := sys.Inode(fd.Num())
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if file, err := sys.UnixFile(inode); err != nil || file != uint32(st.Sys().(*syscall.Stat_t).Ino) {
		t.Errorf("file %d (%v), want that of %+v", file, err, st.Sys())
	}
	abstract, err := sys.OpenListener(sys.ListenSpec{Network: "unix", Path: "@" + path})
	must(t, abstract, err)
	if inode, err = sys.Inode(abstract.Num()); err != nil {
		t.Fatal(err)
	}
	if file, err := sys.UnixFile(inode); err != nil || file != 0 {
		t.Errorf("an abstract socket has the file %d (%v)", file, err)
	}
}
