package intercept_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/intercept"
	"github.com/8265a91a/supervisor/internal/leaktest"
	"github.com/8265a91a/supervisor/internal/sys"
)

// role makes the test binary a child: "install" filters itself and becomes its arguments, "listen" binds the addresses
// it is given, says so, and greets each connection, "twice" and "privs" filter themselves and say what came of it.
const role = "INTERCEPT_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "install":
		install()
	case "listen":
		listen(os.Args[1:])
	case "twice":
		runtime.LockOSThread()
		first, err := sys.FilterBind()
		if err == nil {
			_, err = sys.FilterBind()
			first.Close()
		}
		fmt.Println(err)
	case "privs":
		runtime.LockOSThread()
		_, err := sys.FilterBind()
		status, _ := os.ReadFile("/proc/thread-self/status")
		_, after, _ := strings.Cut(string(status), "NoNewPrivs:")
		value, _, _ := strings.Cut(after, "\n")
		if err != nil {
			value = err.Error()
		}
		fmt.Println(value)
	default:
		os.Exit(leaktest.Main(m))
	}
}

// install does what the exec shim does, with the socket pair as descriptor 3.
func install() {
	runtime.LockOSThread()
	sock := sys.NewFD(3)
	err := intercept.Install(sock)
	sock.Close()
	if err == nil && len(os.Args) > 1 {
		os.Setenv(role, "listen")
		err = syscall.Exec(os.Args[1], os.Args[1:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// listen ends with its standard input.
func listen(addresses []string) {
	for _, a := range addresses {
		network, address, _ := strings.Cut(a, "=")
		var err error
		if strings.HasPrefix(network, "udp") {
			var c net.PacketConn
			if c, err = net.ListenPacket(network, address); err == nil {
				go echo(c)
			}
		} else {
			var l net.Listener
			if l, err = net.Listen(network, address); err == nil {
				go greet(l)
			}
		}
		fmt.Println(a, err)
	}
	fmt.Println("listening")
	io.Copy(io.Discard, os.Stdin)
}

func greet(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		io.WriteString(c, "hello\n")
		c.Close()
	}
}

func echo(c net.PacketConn) {
	buf := make([]byte, 100)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		c.WriteTo(buf[:n], from)
	}
}

// listener is a held socket, as a supervisor has it.
func listener(t *testing.T, network, host string) intercept.Listener {
	t.Helper()
	fd, err := sys.OpenListener(sys.ListenSpec{Network: network, Host: host})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fd.Close() })
	s, err := sys.Inspect(fd.Num())
	if err != nil {
		t.Fatal(err)
	}
	return intercept.Listener{Network: network, Address: netip.MustParseAddrPort(s.Address), FD: fd.Num()}
}

// resolver answers with duplicates of listeners, in the mode of the worker's own socket.
func resolver(listeners ...intercept.Listener) func(intercept.Request) (*sys.FD, error) {
	return func(r intercept.Request) (*sys.FD, error) {
		fd, ok := intercept.Match(r, listeners)
		if !ok {
			return nil, nil
		}
		dup, err := sys.DupNum(fd)
		if err == nil {
			err = sys.SetNonblock(fd, r.Nonblock)
		}
		return dup, err
	}
}

// worker is an intercepted child.
type worker struct {
	cmd     *exec.Cmd
	lines   *bufio.Scanner
	notify  *sys.FD
	served  chan error
	reports chan error
	cancel  context.CancelFunc
}

// start runs argv under interception with listeners to give.
func start(t *testing.T, argv []string, listeners ...intercept.Listener) *worker {
	t.Helper()
	w := &worker{served: make(chan error, 1), reports: make(chan error, 100)}
	w.notify = w.spawn(t, argv)
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(context.Background())
	go func() {
		w.served <- intercept.Serve(ctx, w.notify, resolver(listeners...), func(err error) { w.reports <- err })
	}()
	t.Cleanup(func() {
		w.cancel()
		w.notify.Close()
		for len(w.reports) > 0 {
			t.Errorf("reported: %v", <-w.reports)
		}
	})
	return w
}

func (w *worker) spawn(t *testing.T, argv []string) *sys.FD {
	t.Helper()
	ours, theirs, err := sys.Socketpair(syscall.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w.cmd = exec.Command(self, argv...)
	w.cmd.Env = append(os.Environ(), role+"=install")
	w.cmd.ExtraFiles = []*os.File{theirs.File("theirs")}
	w.cmd.Stderr = os.Stderr
	stdin, err := w.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.lines = bufio.NewScanner(stdout)
	err = w.cmd.Start()
	w.cmd.ExtraFiles[0].Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		w.cmd.Process.Kill()
		w.cmd.Wait()
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	notify, err := intercept.Receive(ctx, ours)
	if err != nil {
		t.Fatal(err)
	}
	return notify
}

// listening returns what the child said until it listened, one line for each address.
func (w *worker) listening(t *testing.T) []string {
	t.Helper()
	var lines []string
	for w.lines.Scan() {
		if w.lines.Text() == "listening" {
			return lines
		}
		lines = append(lines, w.lines.Text())
	}
	t.Fatalf("child ended: %v", lines)
	return nil
}

func dial(t *testing.T, network string, a netip.AddrPort) {
	t.Helper()
	c, err := net.DialTimeout(network, a.String(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if network == "udp" {
		io.WriteString(c, "hello\n")
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); line != "hello\n" {
		t.Errorf("%s %s answers %q, %v", network, a, line, err)
	}
}

// selfListening is the command line of a child that listens on addresses, each NETWORK=ADDRESS.
func selfListening(t *testing.T, addresses ...string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{self}, addresses...)
}

func port(l intercept.Listener) string { return strconv.Itoa(int(l.Address.Port())) }
