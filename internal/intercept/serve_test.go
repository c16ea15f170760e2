package intercept_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/intercept"
	"github.com/8265a91a/supervisor/internal/sys"
)

func TestBindGetsOurSocket(t *testing.T) {
	tcp, udp := listener(t, "tcp", "127.0.0.1"), listener(t, "udp", "127.0.0.1")
	// The addresses are taken: without interception each of these fails with EADDRINUSE.
	a, b := "tcp=127.0.0.1:"+port(tcp), "udp=127.0.0.1:"+port(udp)
	w := start(t, selfListening(t, a, b, a), tcp, udp)
	if diff := cmp.Diff([]string{a + " <nil>", b + " <nil>", a + " <nil>"}, w.listening(t)); diff != "" {
		t.Fatal(diff)
	}
	dial(t, "tcp", tcp.Address)
	dial(t, "udp", udp.Address)
	if on, err := sys.Nonblock(tcp.FD); err != nil || !on {
		t.Errorf("O_NONBLOCK of the replaced socket was not told (%v)", err)
	}
	w.cmd.Process.Kill()
	select {
	case err := <-w.served:
		if err != nil {
			t.Errorf("Serve: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("Serve goes on after the last process has ended")
	}
}

func TestWildcardsAndOtherFamily(t *testing.T) {
	v4 := listener(t, "tcp", "127.0.0.1")
	any4 := listener(t, "tcp", "0.0.0.0")
	both := listener(t, "tcp", "::")
	args := []string{"tcp=:" + port(v4), "tcp=[::]:" + port(any4), "tcp4=0.0.0.0:" + port(both)}
	w := start(t, selfListening(t, args...), v4, any4, both)
	if diff := cmp.Diff([]string{args[0] + " <nil>", args[1] + " <nil>", args[2] + " <nil>"}, w.listening(t)); diff != "" {
		t.Fatal(diff)
	}
	for _, l := range []intercept.Listener{v4, any4, both} {
		dial(t, "tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), l.Address.Port()))
	}
}

func TestOthersAreLetThrough(t *testing.T) {
	ours := listener(t, "tcp", "127.0.0.1")
	any4 := listener(t, "tcp", "0.0.0.0")
	taken := "tcp=127.0.0.1:" + port(any4)
	w := start(t, selfListening(t, "tcp=127.0.0.1:0", "tcp=[::1]:0", "udp=127.0.0.1:"+port(ours), "unix="+t.TempDir()+"/s", taken), ours, any4)
	lines := w.listening(t)
	for _, line := range lines[:4] {
		if !strings.HasSuffix(line, " <nil>") {
			t.Error(line)
		}
	}
	// Loopback was asked for, so that the socket for everybody must not be given.
	if !strings.Contains(lines[4], "address already in use") {
		t.Error(lines[4])
	}
	// UDP at a TCP listener's port is a socket of its own.
	dial(t, "udp", ours.Address)
}

func TestPythonHTTPServer(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	ours := listener(t, "tcp", "0.0.0.0")
	const script = `
import http.server, sys, threading
class H(http.server.BaseHTTPRequestHandler):
    def handle(self): self.request.sendall(b"hello\n")
s = http.server.ThreadingHTTPServer(("", int(sys.argv[1])), H)
threading.Thread(target=s.serve_forever, daemon=True).start()
print("listening", flush=True)
sys.stdin.read()`
	w := start(t, []string{python, "-c", script, port(ours)}, ours)
	w.listening(t)
	dial(t, "tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), ours.Address.Port()))
	if on, err := sys.Nonblock(ours.FD); err != nil || on {
		t.Errorf("O_NONBLOCK is set, Python's sockets block (%v)", err)
	}
}

// A supervisor ends, the next one serves the same notification descriptor: bind waits, and nothing fails.
func TestNextSupervisorServes(t *testing.T) {
	ours := listener(t, "tcp", "127.0.0.1")
	a := "tcp=127.0.0.1:" + port(ours)
	var w worker
	notify := w.spawn(t, selfListening(t, a))
	defer notify.Close()
	resolve := resolver(ours)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := intercept.Serve(ctx, notify, resolve, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Serve: %v", err)
	}
	second, err := notify.Dup()
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	served := make(chan error, 1)
	ctx, cancel = context.WithCancel(context.Background())
	go func() { served <- intercept.Serve(ctx, second, resolve, nil) }()
	if diff := cmp.Diff([]string{a + " <nil>"}, w.listening(t)); diff != "" {
		t.Error(diff)
	}
	dial(t, "tcp", ours.Address)
	cancel()
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve: %v", err)
	}
}

func TestReceiveNoticesADeadChild(t *testing.T) {
	ours, theirs, err := sys.Socketpair(syscall.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	if _, err := intercept.Receive(context.Background(), ours); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("Receive: %v", err)
	}
}

func TestReceiveEndsWithContext(t *testing.T) {
	ours, theirs, err := sys.Socketpair(syscall.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := intercept.Receive(ctx, ours); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Receive: %v", err)
	}
}

func TestSecondFilterIsRefusedClearly(t *testing.T) {
	out, err := childOutput(t, "twice")
	if err != nil || !strings.Contains(out, "under another filter with notifications") {
		t.Errorf("%q, %v", out, err)
	}
}

// A server without rights gets no_new_privs, one with CAP_SYS_ADMIN keeps its set-user-ID helpers.
func TestNoNewPrivsOnlyWhereNeeded(t *testing.T) {
	out, err := childOutput(t, "privs")
	want := "1"
	if os.Getuid() == 0 {
		want = "0"
	}
	if err != nil || strings.TrimSpace(out) != want {
		t.Errorf("no_new_privs is %q, want %s (%v)", out, want, err)
	}
}

func childOutput(t *testing.T, as string) (string, error) {
	t.Helper()
	cmd := exec.Command(selfListening(t)[0])
	cmd.Env = append(os.Environ(), role+"="+as)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Signals that interrupt a bind while it is answered must not make it fail, if their handler restarts system calls.
func TestBindUnderSignals(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	ours := listener(t, "tcp", "127.0.0.1")
	const script = `
import signal, socket, sys
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
for i in range(100):
    s = socket.socket()
    s.bind(("127.0.0.1", int(sys.argv[1])))
    s.listen()
    s.close()
signal.setitimer(signal.ITIMER_REAL, 0)
print("listening", flush=True)
sys.stdin.read()`
	start(t, []string{python, "-c", script, port(ours)}, ours).listening(t)
}
