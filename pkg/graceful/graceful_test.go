package graceful_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/fdstoretest"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/getsocks"
	"github.com/8265a91a/supervisor/pkg/graceful"
	"github.com/8265a91a/supervisor/test/load"
)

// TestTenReplacementsLoseNothing shares one socket between two generations, with nobody to steer, ten times.
func TestTenReplacementsLoseNothing(t *testing.T) {
	tests := map[string]struct {
		role    string
		spec    sys.ListenSpec
		clients map[load.Class]int
	}{
		"http": {"http", sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"},
			map[load.Class]int{load.New: 3, load.Late: 6, load.Keep: 3, load.Slow: 2}},
		"http unix": {"http", sys.ListenSpec{Network: "unix", Path: filepath.Join(t.TempDir(), "s")},
			map[load.Class]int{load.New: 3, load.Late: 6}},
		"conns":   {"conns", sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"}, map[load.Class]int{load.New: 3, load.Late: 6}},
		"packets": {"packets", sys.ListenSpec{Network: "udp", Host: "127.0.0.1"}, map[load.Class]int{load.UDP: 3}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			result := replace(t, test.role, test.spec, test.clients, 10)
			if result.Failures() > 0 || result.IdleClosed() > 0 {
				t.Errorf("lost requests: %s", result)
			}
			t.Logf("%s", result)
		})
	}
}

// TestTheLoadSeesLosses replaces a server that ends on its signal: if nothing were lost then, the test above would prove
// nothing.
func TestTheLoadSeesLosses(t *testing.T) {
	result := replace(t, "naive", sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"}, map[load.Class]int{load.New: 3, load.Late: 9}, 5)
	if result.Failures() == 0 {
		t.Errorf("nothing is lost: %s", result)
	}
	t.Logf("%s", result)
}

// replace puts n generations, one after the other, in the place of the first under load.
func replace(t *testing.T, role string, spec sys.ListenSpec, clients map[load.Class]int, n int) load.Result {
	t.Helper()
	fd, s := open(t, spec)
	m := fdstoretest.New(t)
	m.AddSocketUnit(t, "web", fd.Num())
	old := start(t, m, role)
	run := load.Start(context.Background(), load.Options{Target: load.Target{Network: s.Network, Address: s.Address},
		Clients: clients, SlowPath: "/slow?ms=300", Pause: time.Millisecond})
	for range n {
		next := start(t, m, role)
		begun := run.Sent()
		if status := old.stop(t, syscall.SIGTERM); status.ExitStatus() != 0 {
			t.Errorf("the drained generation ended with status %d", status.ExitStatus())
		}
		for run.Sent() < begun+20 {
			time.Sleep(time.Millisecond)
		}
		old = next
	}
	return run.Stop()
}

// TestRunsOnItsOwn has nobody who passes anything.
func TestRunsOnItsOwn(t *testing.T) {
	for _, key := range []string{"LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET"} {
		t.Setenv(key, "")
		os.Unsetenv(key)
	}
	w, err := graceful.New(graceful.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := w.Listen("web", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.HTTP(l, &http.Server{Handler: http.NotFoundHandler()})
	if err := w.Keep("state", nil); !errors.Is(err, graceful.ErrNoManager) {
		t.Errorf("keep without a manager: %v", err)
	}
	if _, err := w.State("state"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("state without a manager: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	resp, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the socket outlived Run")
	}
}

func TestStateReachesTheNextGeneration(t *testing.T) {
	m := fdstoretest.New(t)
	for i := range 3 {
		g := start(t, m, "state")
		if status := g.stop(t, syscall.SIGTERM); status.ExitStatus() != 0 {
			t.Fatalf("generation %d ended with %v", i, status)
		}
		want := strconv.Itoa(i + 1)
		entries := m.Entries()
		if len(entries) != 1 || entries[0].Name != "count" {
			t.Fatalf("stored: %v", m.Names())
		}
		if data, err := sys.ReadMemfd(entries[0].FD.Num(), 100); string(data) != want || err != nil {
			t.Errorf("generation %s kept %q, %v", want, data, err)
		}
	}
}

func TestGetsocksServesTheSockets(t *testing.T) {
	fd, s := open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	m := fdstoretest.New(t)
	m.AddSocketUnit(t, "web.socket", fd.Num())
	path := filepath.Join(t.TempDir(), "g")
	g := start(t, m, "http", "GETSOCKS="+path)
	sockets, err := getsocks.Fetch(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer getsocks.CloseAll(sockets)
	if len(sockets) != 1 {
		t.Fatalf("%d sockets", len(sockets))
	}
	if got, err := sys.Inspect(sockets[0].FD.Num()); err != nil || got.Cookie != s.Cookie {
		t.Errorf("got %+v (%v), want %+v", got, err, s)
	}
	g.stop(t, syscall.SIGTERM)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the path was left: %v", err)
	}
}

// TestClaim checks which passed socket a name and address get.
func TestClaim(t *testing.T) {
	web, webInfo := open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	other, otherInfo := open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	for name, address := range map[string]string{"by name": "127.0.0.1:1", "by address": webInfo.Address} {
		t.Run(name, func(t *testing.T) {
			m := fdstoretest.New(t)
			m.AddSocketUnit(t, "other", other.Num())
			passedAs := "web"
			if name == "by address" {
				passedAs = "app.socket"
			}
			m.AddSocketUnit(t, passedAs, web.Num())
			g := start(t, m, "http", "NETWORK=tcp", "ADDRESS="+address, "LEAVE=other")
			resp, err := http.Get("http://" + webInfo.Address)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			http.DefaultClient.CloseIdleConnections()
			if open := socketInodes(t, g.pid); slices.Contains(open, otherInfo.Inode) || !slices.Contains(open, webInfo.Inode) {
				t.Errorf("the worker holds %v, want %d and not %d", open, webInfo.Inode, otherInfo.Inode)
			}
		})
	}
}

// TestUnclaimedSockets: a program that is ready, but does not listen where its clients connect, would hang them.
func TestUnclaimedSockets(t *testing.T) {
	one, oneInfo := open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	two, twoInfo := open(t, sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	t.Run("none of that name", func(t *testing.T) {
		m := fdstoretest.New(t)
		m.AddSocketUnit(t, "hello.socket", one.Num())
		said := fail(t, m, "http", "NETWORK=tcp", "ADDRESS=127.0.0.1:0")
		if !strings.Contains(said, `wait for ever: "hello.socket" (`+oneInfo.Address+")") {
			t.Errorf("it says %q", said)
		}
	})
	t.Run("none of that name, the address in use", func(t *testing.T) {
		m := fdstoretest.New(t)
		m.AddSocketUnit(t, "hello.socket", one.Num())
		said := fail(t, m, "http", "NETWORK=tcp", "ADDRESS="+twoInfo.Address)
		for _, want := range []string{"listen as web", `"hello.socket" (` + oneInfo.Address + ")"} {
			if !strings.Contains(said, want) {
				t.Errorf("it says %q, want %q in it", said, want)
			}
		}
	})
	t.Run("one of two of a name", func(t *testing.T) {
		m := fdstoretest.New(t)
		m.AddSocketUnit(t, "web.socket", one.Num())
		m.AddSocketUnit(t, "web.socket", two.Num())
		said := fail(t, m, "http", "NETWORK=tcp", "ADDRESS=127.0.0.1:0")
		if !strings.Contains(said, `wait for ever: "web.socket" (`+twoInfo.Address+")") {
			t.Errorf("it says %q", said)
		}
	})
	t.Run("both of a name", func(t *testing.T) {
		m := fdstoretest.New(t)
		m.AddSocketUnit(t, "web.socket", one.Num())
		m.AddSocketUnit(t, "web.socket", two.Num())
		start(t, m, "twice")
	})
	t.Run("one passed, one bound", func(t *testing.T) {
		m := fdstoretest.New(t)
		m.AddSocketUnit(t, "web.socket", one.Num())
		start(t, m, "twice", "ADDRESS=127.0.0.1:0")
	})
	t.Run("given up, under the supervisor", func(t *testing.T) {
		m := fdstoretest.New(t)
		m.AddSocketUnit(t, "old", one.Num())
		m.AddSocketUnit(t, "web", two.Num())
		start(t, m, "http", "NETWORK=tcp", "ADDRESS=127.0.0.1:0", "SUPERVISOR_GENERATION=web/2")
	})
}

// TestSecondStartByHand finds the path of a Unix socket that the start before left.
func TestSecondStartByHand(t *testing.T) {
	for _, network := range []string{"unix", "unixpacket", "unixgram"} {
		t.Run(network, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			for range 2 {
				w, err := graceful.New(graceful.Options{})
				if err != nil {
					t.Fatal(err)
				}
				listen := func() error {
					if network == "unixgram" {
						_, err := w.ListenPacket("web", network, path)
						return err
					}
					_, err := w.Listen("web", network, path)
					return err
				}
				if err := listen(); err != nil {
					t.Error(err)
				}
				if err := listen(); err == nil {
					t.Error("a living socket was replaced")
				}
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				if err := w.Run(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestOddEnvironment: only what is missing keeps a server from starting.
func TestOddEnvironment(t *testing.T) {
	pid := strconv.Itoa(os.Getpid())
	tests := map[string]map[string]string{
		"inherited from another process": {"LISTEN_FDS": "3", "LISTEN_PID": "1"},
		"without a process":              {"LISTEN_FDS": "3"},
		"another pidfd":                  {"LISTEN_FDS": "0", "LISTEN_PID": pid, "LISTEN_PIDFDID": "1"},
		"odd store":                      {"FDSTORE": "many"},
		"odd notify socket":              {"NOTIFY_SOCKET": "vsock:2:1"},
	}
	for name, env := range tests {
		t.Run(name, func(t *testing.T) {
			for key, value := range env {
				t.Setenv(key, value)
			}
			w, err := graceful.New(graceful.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if len(w.Warnings()) != 1 {
				t.Errorf("warnings: %v", w.Warnings())
			}
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if err := w.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("not open", func(t *testing.T) {
		if said := fail(t, fdstoretest.New(t), "http", "LISTEN_FDS=100000"); !strings.Contains(said, "not open") {
			t.Errorf("it says %q", said)
		}
	})
}

func socketInodes(t *testing.T, pid int) []uint64 {
	t.Helper()
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var inodes []uint64
	for _, e := range entries {
		target, _ := os.Readlink(filepath.Join(dir, e.Name()))
		if n, ok := strings.CutPrefix(target, "socket:["); ok {
			inode, _ := strconv.ParseUint(strings.TrimSuffix(n, "]"), 10, 64)
			inodes = append(inodes, inode)
		}
	}
	return inodes
}
