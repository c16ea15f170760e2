package worker_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/leaktest"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// role makes the test binary play a worker: the value is a space-separated list of verbs.
const role = "TEST_WORKER"

// limit bounds every wait for an event; it is long because the machine may be busy.
const limit = 20 * time.Second

func TestMain(m *testing.M) {
	if verbs := os.Getenv(role); verbs != "" {
		play(strings.Fields(verbs))
	}
	// As the daemon is: orphans come here instead of to init.
	if err := sys.Subreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(leaktest.Main(m))
}

// play never returns.
func play(verbs []string) {
	for i, verb := range verbs {
		name, value, _ := strings.Cut(verb, "=")
		switch name {
		case "ignore":
			signal.Ignore(syscall.SIGTERM, syscall.SIGUSR1)
		case "say":
			fmt.Fprintln(os.Stdout, value)
		case "flood":
			for n := range 5000 {
				fmt.Printf("line %d\n", n)
			}
		case "fork": // the rest is done by a child, which this process does not wait for
			spawn(verbs[i+1:], false)
			wait(nil)
		case "forkwait":
			syscall.Wait4(spawn(verbs[i+1:], false), nil, 0, nil)
			wait(nil)
		case "daemonise": // the same in a session of its own, and this process ends
			spawn(verbs[i+1:], true)
			os.Exit(0)
		case "forkexit":
			spawn(verbs[i+1:], false)
			os.Exit(7)
		case "exit":
			code := 0
			fmt.Sscan(value, &code)
			os.Exit(code)
		case "kill":
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
		case "until": // SIGTERM
			c := make(chan os.Signal, 1)
			signal.Notify(c, syscall.SIGTERM, syscall.SIGUSR1)
			fmt.Println("up", os.Getpid())
			wait(c)
			os.Exit(0)
		case "sleep":
			fmt.Println("up", os.Getpid())
			wait(nil)
		}
	}
	os.Exit(0)
}

// wait ends with an event on c, or after a time so long that a forgotten process does not stay for ever.
func wait(c <-chan os.Signal) {
	select {
	case <-c:
	case <-time.After(2 * time.Minute):
	}
}

func spawn(verbs []string, setsid bool) (pid int) {
	env := []string{role + "=" + strings.Join(verbs, " ")}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, role) {
			env = append(env, kv)
		}
	}
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args[:1], &syscall.ProcAttr{
		Env: env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: setsid}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return pid
}

// run is a started worker and what it says.
type run struct {
	*worker.Process
	tree  *worker.Tree
	lines *bufio.Scanner
}

// start starts a worker that plays verbs, and ends and reaps all that comes of it when the test ends.
func start(t *testing.T, verbs string) *run {
	t.Helper()
	r, w, err := sys.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	marker := "SUPERVISOR_GENERATION=" + t.Name() + "/1"
	p, err := worker.Start(command(verbs, marker, -1, w.Num(), 2))
	if err != nil {
		r.Close()
		t.Fatal(err)
	}
	f := r.File("stdout")
	tree := worker.NewTree(p, marker)
	t.Cleanup(func() {
		for !tree.Empty() {
			tree.Signal(syscall.SIGKILL)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			tree.Wait(ctx)
			cancel()
		}
		f.Close()
		p.Release()
		worker.ReapOrphans()
	})
	return &run{p, tree, bufio.NewScanner(f)}
}

func command(verbs, marker string, files ...int) worker.Command {
	return worker.Command{Argv: []string{"/proc/self/exe"}, Env: []string{role + "=" + verbs, marker, "GORACE=atexit_sleep_ms=0"}, Files: files}
}

// up waits until n processes have said that they run, and returns the last one's pid.
func (r *run) up(t *testing.T, n int) (pid int) {
	t.Helper()
	for range n {
		if !r.lines.Scan() {
			t.Fatal("the worker ended without a word")
		}
		fmt.Sscanf(r.lines.Text(), "up %d", &pid)
	}
	return pid
}

func ended(t *testing.T, p *worker.Process) sys.Exit {
	t.Helper()
	select {
	case <-p.Done():
		return p.Exit()
	case <-time.After(limit):
		t.Fatal("the process does not end")
		return sys.Exit{}
	}
}
