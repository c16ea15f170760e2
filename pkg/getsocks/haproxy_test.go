package getsocks_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/getsocks"
)

const haproxyBinary = "/usr/sbin/haproxy"

// haproxy is a running, real HAProxy.
type haproxy struct {
	cmd   *exec.Cmd
	stats string
	log   *bytes.Buffer
}

// startHAProxy writes a configuration with a stats socket and the given bind lines and runs it with args, until the test ends.
func startHAProxy(tb testing.TB, extra *os.File, binds []string, args ...string) *haproxy {
	tb.Helper()
	if _, err := os.Stat(haproxyBinary); err != nil {
		tb.Skip("haproxy is not installed")
	}
	dir := tb.TempDir()
	h := &haproxy{stats: filepath.Join(dir, "admin.sock"), log: new(bytes.Buffer)}
	config := fmt.Sprintf("global\n  stats socket %s level admin expose-fd listeners\n"+
		"defaults\n  mode http\n  timeout client 5s\n  timeout server 5s\n  timeout connect 5s\n"+
		"frontend f\n  bind %s\n  http-request return status 200 content-type text/plain lf-string %%pid\n", h.stats, strings.Join(binds, "\n  bind "))
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
	h.cmd = exec.Command(haproxyBinary, append([]string{"-db", "-f", file}, args...)...)
	h.cmd.Stdout, h.cmd.Stderr = h.log, h.log
	h.cmd.WaitDelay = time.Second
	if extra != nil {
		h.cmd.ExtraFiles = []*os.File{extra}
	}
	if err := h.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { h.cmd.Wait(); close(exited) }()
	tb.Cleanup(func() {
		h.cmd.Process.Kill()
		<-exited
		if tb.Failed() {
			tb.Logf("haproxy said:\n%s", h.log)
		}
	})
	waitFor(tb, "haproxy to be ready", func() bool {
		select {
		case <-exited:
			tb.Fatalf("haproxy exited: %v\n%s", h.cmd.ProcessState, h.log)
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		pid, err := getsocks.PID(ctx, h.stats)
		return err == nil && pid == h.cmd.Process.Pid
	})
	return h
}

// fetch returns what h exports, by address without HAProxy's temporary names, closed at the end of the test.
func (h *haproxy) fetch(tb testing.TB) map[string]getsocks.Socket {
	tb.Helper()
	list, err := getsocks.Fetch(patient(tb), h.stats)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { getsocks.CloseAll(list) })
	byAddress := map[string]getsocks.Socket{}
	for _, s := range list {
		info, err := sys.Inspect(s.FD.Num())
		if err != nil {
			tb.Fatal(err)
		}
		byAddress[getsocks.TrimTemp(info.Address)] = s
	}
	if len(byAddress) != len(list) {
		tb.Fatalf("%d sockets with %d addresses", len(list), len(byAddress))
	}
	return byAddress
}

// sameSockets reports the identity of every socket but the stats socket.
func sameSockets(tb testing.TB, m map[string]getsocks.Socket, stats string) map[string]uint64 {
	tb.Helper()
	ids := map[string]uint64{}
	for address, s := range m {
		if address != stats {
			ids[address] = identities(tb, []getsocks.Socket{s})[0]
		}
	}
	return ids
}

func addresses(m map[string]getsocks.Socket) []string {
	var list []string
	for a := range m {
		list = append(list, a)
	}
	slices.Sort(list)
	return list
}

func TestHAProxyFetch(t *testing.T) {
	port := freePort(t)
	path := filepath.Join(t.TempDir(), "front.sock")
	tcp := fmt.Sprintf("127.0.0.1:%d", port)
	old := startHAProxy(t, nil, []string{tcp, fmt.Sprintf("127.0.0.2:%d interface lo", port), "unix@" + path, "abns@getsocks-test-" + strconv.Itoa(port)})
	got := old.fetch(t)
	lo := fmt.Sprintf("127.0.0.2:%d", port)
	want := []string{tcp, lo, old.stats, path, "@getsocks-test-" + strconv.Itoa(port)}
	slices.Sort(want)
	if diff := cmp.Diff(want, addresses(got)); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	for address, s := range got {
		name := ""
		if address == lo {
			name = "lo"
		}
		if s.Interface != name || s.Namespace != "" {
			t.Errorf("%s has interface %q and namespace %q", address, s.Interface, s.Namespace)
		}
		if info, err := sys.Inspect(s.FD.Num()); err != nil || !info.Listening {
			t.Errorf("%s does not listen: %+v (%v)", address, info, err)
		}
	}
	// Asking again gives the same sockets.
	if diff := cmp.Diff(sameSockets(t, got, ""), sameSockets(t, old.fetch(t), "")); diff != "" {
		t.Errorf("second answer (-first +second):\n%s", diff)
	}
}

// TestHAProxyKeepsToItself: without "expose-fd listeners" HAProxy closes the connection, and still says who it is.
func TestHAProxyKeepsToItself(t *testing.T) {
	shy := filepath.Join(t.TempDir(), "shy.sock")
	h := startHAProxy(t, nil, []string{fmt.Sprintf("127.0.0.1:%d\nglobal\n  stats socket %s level admin\nfrontend g\n  bind 127.0.0.1:%d", freePort(t), shy, freePort(t))})
	if _, err := getsocks.Fetch(patient(t), shy); !errors.Is(err, getsocks.ErrNothing) {
		t.Errorf("error %v, want ErrNothing", err)
	}
	if pid, err := getsocks.PID(patient(t), shy); err != nil || pid != h.cmd.Process.Pid {
		t.Errorf("PID is %d (%v), want %d", pid, err, h.cmd.Process.Pid)
	}
}

func TestHAProxyAdopts(t *testing.T) {
	port := freePort(t)
	path := filepath.Join(t.TempDir(), "front.sock")
	// UDP takes a section of its own, after which the frontend goes on.
	const udp = "\nlog-forward l\n  dgram-bind 127.0.0.3:%d\n  log 127.0.0.1:9 local0\nfrontend g"
	binds := []string{fmt.Sprintf("127.0.0.2:%d interface lo"+udp, port, port), fmt.Sprintf("127.0.0.1:%d", port), "unix@" + path}
	old := startHAProxy(t, nil, binds)
	fetched := old.fetch(t)
	want := sameSockets(t, fetched, old.stats)
	if len(want) != 4 {
		t.Fatalf("haproxy exports %v", addresses(fetched))
	}
	var list []getsocks.Socket
	for address, s := range fetched {
		if address != old.stats {
			list = append(list, s)
		}
	}
	t.Run("sockpair", func(t *testing.T) {
		ours, theirs := sockpair(t)
		served := make(chan error, 1)
		go func() {
			served <- getsocks.ServePair(patient(t), ours, func() []getsocks.Socket { return list })
		}()
		next := startHAProxy(t, theirs, binds, "-x", "sockpair@3")
		theirs.Close()
		adopted(t, next, want)
		next.stop(t)
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Run("path", func(t *testing.T) {
		s, err := getsocks.Listen(filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.OnError = func(err error) { t.Error(err) }
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() {
			served <- s.Serve(ctx, func() ([]getsocks.Socket, func()) { return list, func() {} })
		}()
		next := startHAProxy(t, nil, binds, "-x", s.Path())
		adopted(t, next, want)
		next.stop(t)
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	// Two successors came and went; the first one still serves on the same sockets.
	answer(t, port, old.cmd.Process.Pid)
}

func TestHAProxyManySockets(t *testing.T) {
	const n = 1001
	held := listeners(t, n)
	binds := make([]string, n)
	for i, fd := range held {
		info, err := sys.Inspect(fd.Num())
		if err != nil {
			t.Fatal(err)
		}
		binds[i] = info.Address
	}
	ours, theirs := sockpair(t)
	served := make(chan error, 1)
	go func() {
		served <- getsocks.ServePair(patient(t), ours, func() []getsocks.Socket { return sockets(held) })
	}()
	h := startHAProxy(t, theirs, binds, "-x", "sockpair@3")
	theirs.Close()
	want := map[string]uint64{}
	for i, id := range identities(t, sockets(held)) {
		want[binds[i]] = id
	}
	adopted(t, h, want)
	h.stop(t)
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}

// sockpair returns our end as a connection, and the end that HAProxy inherits.
func sockpair(tb testing.TB) (*net.UnixConn, *os.File) {
	tb.Helper()
	a, b, err := sys.Socketpair(syscall.SOCK_STREAM)
	if err != nil {
		tb.Fatal(err)
	}
	ours, err := sys.UnixConn(a)
	if err != nil {
		tb.Fatal(err)
	}
	theirs := b.File("sockpair")
	tb.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

func adopted(tb testing.TB, h *haproxy, want map[string]uint64) {
	tb.Helper()
	if diff := cmp.Diff(want, sameSockets(tb, h.fetch(tb), h.stats)); diff != "" {
		tb.Errorf("sockets of the new haproxy (-held +its own):\n%s", diff)
	}
}

// stop ends h as a drain does and waits until its stats socket is gone.
func (h *haproxy) stop(tb testing.TB) {
	tb.Helper()
	if err := h.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		tb.Fatal(err)
	}
	waitFor(tb, "haproxy to end", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d/exe", h.cmd.Process.Pid))
		return err != nil
	})
}

func answer(tb testing.TB, port, pid int) {
	tb.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || strings.TrimSpace(string(body)) != strconv.Itoa(pid) {
		tb.Errorf("answered by %q (%v), want %d", body, err, pid)
	}
}
