package graceful_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/fdstoretest"
	"github.com/8265a91a/supervisor/internal/leaktest"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/fdstore"
	"github.com/8265a91a/supervisor/pkg/graceful"
)

func TestMain(m *testing.M) {
	if role := os.Getenv("GRACEFUL_TEST_ROLE"); role != "" {
		// In real life the exec shim or systemd sets it.
		if os.Getenv("LISTEN_FDS") != "" {
			os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		}
		if err := child(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(leaktest.Main(m))
}

// child is the worker of the tests.
func child(role string) error {
	w, err := graceful.New(graceful.Options{})
	if err != nil {
		return err
	}
	switch role {
	case "http":
		err = childHTTP(w)
	case "conns":
		err = childConns(w)
	case "packets":
		err = childPackets(w)
	case "naive":
		return childNaive(w)
	case "state":
		err = childState(w)
	case "twice":
		err = childTwice(w)
	case "keep":
		err = childKeep(w)
	default:
		err = fmt.Errorf("unknown role %s", role)
	}
	if err != nil {
		return err
	}
	return w.Run(context.Background())
}

func childHTTP(w *graceful.Worker) error {
	l, err := w.Listen("web", os.Getenv("NETWORK"), os.Getenv("ADDRESS"))
	if err != nil {
		return err
	}
	if f := w.File(os.Getenv("LEAVE")); f != nil {
		f.Close()
	}
	w.HTTP(l, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if ms, err := strconv.Atoi(r.URL.Query().Get("ms")); err == nil {
			time.Sleep(time.Duration(ms) * time.Millisecond)
		}
		fmt.Fprintf(rw, "pid=%d", os.Getpid())
	})})
	if path := os.Getenv("GETSOCKS"); path != "" {
		return w.Getsocks(path)
	}
	return nil
}

// childNaive ends in the middle of everything.
func childNaive(w *graceful.Worker) error {
	l, err := w.Listen("web", "tcp", "")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {})}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go server.Serve(l)
	store, err := fdstore.Open(os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	if err := store.Notify("READY=1"); err != nil {
		return err
	}
	<-stop
	return nil
}

// childConns answers each line with its pid.
func childConns(w *graceful.Worker) error {
	l, err := w.Listen("web", "tcp", os.Getenv("ADDRESS"))
	if err != nil {
		return err
	}
	w.Conns(l, func(_ context.Context, c net.Conn) {
		if _, err := c.Read(make([]byte, 512)); err == nil {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 14\r\n\r\npid=%010d", os.Getpid())
		}
	})
	return nil
}

func childPackets(w *graceful.Worker) error {
	c, err := w.ListenPacket("web", "udp", os.Getenv("ADDRESS"))
	if err != nil {
		return err
	}
	w.Packets(c, func(c net.PacketConn) error {
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return err
			}
			if _, err := c.WriteTo(fmt.Appendf(nil, "pid=%d %s", os.Getpid(), buf[:n]), from); err != nil {
				return err
			}
		}
	})
	return nil
}

// childState counts its generations by what it keeps.
func childState(w *graceful.Worker) error {
	old, err := w.State("count")
	if err != nil {
		old = []byte("0")
	}
	n, err := strconv.Atoi(string(old))
	if err != nil {
		return err
	}
	if err := w.Keep("count", []byte(strconv.Itoa(n+1))); err != nil {
		return err
	}
	return w.Status("generation " + strconv.Itoa(n+1))
}

// childTwice listens on two sockets of one name.
func childTwice(w *graceful.Worker) error {
	for range 2 {
		l, err := w.Listen("web", "tcp", os.Getenv("ADDRESS"))
		if err != nil {
			return err
		}
		w.HTTP(l, &http.Server{Handler: http.NotFoundHandler()})
	}
	return nil
}

// childKeep says what came of its wish.
func childKeep(w *graceful.Worker) error {
	err := w.Keep(os.Getenv("KEEP"), []byte("new"))
	return w.Status(fmt.Sprintf("kept: %v", err))
}

// fail runs a child that must not become ready, and returns what it says.
func fail(t *testing.T, m *fdstoretest.Manager, role string, env ...string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pid := spawn(t, m, role, w.Fd(), env)
	w.Close()
	g := &generation{pid: pid}
	defer g.stop(t, syscall.SIGKILL)
	if err := r.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("the worker goes on: %v", err)
	}
	if status := g.stop(t, 0); status.ExitStatus() != 1 {
		t.Errorf("it ended with status %d", status.ExitStatus())
	}
	return string(said)
}

// generation is a child that runs.
type generation struct{ pid int }

// start runs a child that gets what the manager passes, and waits until it is ready.
func start(t *testing.T, m *fdstoretest.Manager, role string, env ...string) *generation {
	t.Helper()
	g := &generation{pid: spawn(t, m, role, 2, env)}
	t.Cleanup(func() { g.stop(t, syscall.SIGKILL) })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := m.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return g
}

func spawn(t *testing.T, m *fdstoretest.Manager, role string, stderr uintptr, env []string) int {
	t.Helper()
	more, passed := m.Environment()
	files := []uintptr{0, 1, stderr}
	for _, fd := range passed {
		files = append(files, uintptr(fd))
	}
	env = append(append(append(os.Environ(), "GRACEFUL_TEST_ROLE="+role, "GORACE=atexit_sleep_ms=0"), more...), env...)
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args[:1], &syscall.ProcAttr{Files: files, Env: env})
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// stop signals the child, once, and returns its status.
func (g *generation) stop(t *testing.T, sig syscall.Signal) syscall.WaitStatus {
	t.Helper()
	var status syscall.WaitStatus
	if g.pid == 0 {
		return status
	}
	_ = syscall.Kill(g.pid, sig)
	if _, err := syscall.Wait4(g.pid, &status, 0, nil); err != nil {
		t.Error(err)
	}
	g.pid = 0
	return status
}

// open binds spec for the test.
func open(t *testing.T, spec sys.ListenSpec) (*sys.FD, sys.Socket) {
	t.Helper()
	fd, err := sys.OpenListener(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fd.Close() })
	s, err := sys.Inspect(fd.Num())
	if err != nil {
		t.Fatal(err)
	}
	return fd, s
}
