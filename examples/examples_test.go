// Package examples_test replaces each example ten times under load, on one shared socket and with nobody to steer.
package examples_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/fdstoretest"
	"github.com/8265a91a/supervisor/internal/leaktest"
	"github.com/8265a91a/supervisor/internal/probe"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/fdstore"
	_ "github.com/8265a91a/supervisor/pkg/graceful" // what the examples are built from: go test must not use an old result
	"github.com/8265a91a/supervisor/test/load"
)

func TestMain(m *testing.M) {
	// A child knows its own pid: it becomes the example once it has said so.
	if argv := os.Getenv("EXAMPLE"); argv != "" {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		fmt.Fprintln(os.Stderr, syscall.Exec(argv, append([]string{argv}, os.Args[1:]...), os.Environ()))
		os.Exit(127)
	}
	os.Exit(leaktest.Main(m))
}

// generation starts a program with what the manager passes and waits until it listens on the sockets.
func generation(t *testing.T, m *fdstoretest.Manager, argv []string, inodes []uint64) int {
	t.Helper()
	store, err := fdstore.Open(m.Socket)
	if err == nil {
		err = store.Barrier(t.Context()) // what the last generation keeps has arrived
	}
	if err != nil {
		t.Fatal(err)
	}
	more, passed := m.Environment()
	files := []uintptr{0, 1, 2}
	for _, fd := range passed {
		files = append(files, uintptr(fd))
	}
	env := append(append(os.Environ(), "EXAMPLE="+argv[0]), more...)
	pid, err := syscall.ForkExec("/proc/self/exe", append(os.Args[:1:1], argv[1:]...), &syscall.ProcAttr{Files: files, Env: env})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		found, err := probe.Listening([]int{pid}, inodes)
		if len(found) == len(inodes) {
			return pid
		}
		if time.Now().After(deadline) {
			stop(t, pid, syscall.SIGKILL)
			t.Fatalf("%v does not listen: %v", argv, err)
		}
	}
}

func stop(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	var status syscall.WaitStatus
	_ = syscall.Kill(pid, sig)
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || sig == syscall.SIGTERM && status.ExitStatus() != 0 {
		t.Errorf("process %d ended with status %d (%v)", pid, status.ExitStatus(), err)
	}
}

// socket binds one and lets the manager pass it as name.
func socket(t *testing.T, m *fdstoretest.Manager, network, name string) sys.Socket {
	t.Helper()
	fd, err := sys.OpenListener(sys.ListenSpec{Network: network, Host: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fd.Close() })
	m.AddSocketUnit(t, name, fd.Num())
	s, err := sys.Inspect(fd.Num())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// program builds a Go example.
func program(t *testing.T, name string) string {
	t.Helper()
	read(t, filepath.Join(name, "main.go"))
	path := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("go", "build", "-o", path, "./"+name).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return path
}

// read tells go test's cache that the result depends on the file.
func read(t *testing.T, path string) {
	t.Helper()
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
}

// script returns the command line of an example that is interpreted.
func script(t *testing.T, name, path string) []string {
	t.Helper()
	read(t, path)
	return []string{interpreter(t, name), path}
}

func interpreter(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip(err)
	}
	return path
}

func TestHTTPExamples(t *testing.T) {
	for name, argv := range map[string]func(t *testing.T) []string{
		"http":   func(t *testing.T) []string { return []string{program(t, "http")} },
		"python": func(t *testing.T) []string { return script(t, "python3", "python/server.py") },
		"node":   func(t *testing.T) []string { return script(t, "node", "node/server.js") },
	} {
		t.Run(name, func(t *testing.T) {
			argv := argv(t)
			m := fdstoretest.New(t)
			s := socket(t, m, "tcp", "http")
			result := replace(t, m, argv, []uint64{s.Inode}, load.Options{Target: load.Target{Address: s.Address},
				Clients: map[load.Class]int{load.New: 3, load.Late: 6, load.Keep: 2}})
			if result.Failures() > 0 {
				t.Errorf("lost requests: %s", result)
			}
			t.Logf("%s", result)
		})
	}
}

func TestRawExample(t *testing.T) {
	argv := []string{program(t, "raw")}
	m := fdstoretest.New(t)
	lines, packets := socket(t, m, "tcp", "lines"), socket(t, m, "udp", "packets")
	result := replace(t, m, argv, []uint64{lines.Inode, packets.Inode}, load.Options{Target: load.Target{Address: packets.Address},
		Clients: map[load.Class]int{load.UDP: 3}})
	if result.Failures() > 0 {
		t.Errorf("lost datagrams: %s", result)
	}
	t.Logf("%s", result)
	pid := generation(t, m, argv, []uint64{lines.Inode, packets.Inode})
	defer stop(t, pid, syscall.SIGTERM)
	c, err := net.Dial("tcp", lines.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintln(c, "hello")
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if want := fmt.Sprintf("pid=%d generation 12: hello\n", pid); err != nil || string(buf[:n]) != want {
		t.Errorf("got %q (%v), want %q", buf[:n], err, want)
	}
}

// replace puts ten generations in the place of the first under load.
func replace(t *testing.T, m *fdstoretest.Manager, argv []string, inodes []uint64, o load.Options) load.Result {
	t.Helper()
	o.Pause = time.Millisecond
	old := generation(t, m, argv, inodes)
	run := load.Start(context.Background(), o)
	for range 10 {
		next := generation(t, m, argv, inodes)
		begun := run.Sent()
		stop(t, old, syscall.SIGTERM)
		for run.Sent() < begun+20 {
			time.Sleep(time.Millisecond)
		}
		old = next
	}
	result := run.Stop()
	stop(t, old, syscall.SIGTERM)
	return result
}
