package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/internal/fdstoretest"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/fdstore"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// limit bounds every wait for an event; it is long because the machine may be busy.
const limit = 30 * time.Second

// raceOptions keeps the race detector from waiting for a second at the end of each process.
const raceOptions = "GORACE=atexit_sleep_ms=0"

var services atomic.Int32

// service is a daemon under a service manager, with everything that outlives the daemon.
type service struct {
	t       *testing.T
	name    string
	dir     string
	addr    string // of the socket "http"
	binary  string // what is started
	env     []string
	manager *fdstoretest.Manager
	daemon  *worker.Process // nil while none runs
	binds   bool            // the worker binds by itself
}

// newService makes a service that is not started yet. It has an address of its own: nothing else on the machine can
// be in its way. configure may add to the configuration file (see config).
func newService(t *testing.T, extra string) *service {
	t.Helper()
	n, host := address(t)
	dir, err := os.MkdirTemp("", "sv") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	s := &service{
		t: t, name: fmt.Sprintf("t%d-%d", os.Getpid(), n), dir: dir, binary: "/proc/self/exe",
		addr: host + ":8080",
	}
	if s.binary, err = os.Executable(); err != nil {
		t.Fatal(err)
	}
	s.manager = fdstoretest.New(t)
	reapOrphans(t)
	t.Cleanup(s.cleanup)
	s.arguments()
	s.configure(extra)
	return s
}

// address returns the number of a service and an address that is its own until the test ends: a listener there, which
// nobody talks to, keeps all other tests away.
func address(t *testing.T) (n int, host string) {
	t.Helper()
	for {
		n = int(services.Add(1))
		number := os.Getpid()<<8 + n
		host = fmt.Sprintf("127.%d.%d.%d", 64+number>>16&63, number>>8&255, number&255)
		claim, err := net.Listen("tcp", host+":8079")
		if err == nil {
			t.Cleanup(func() { claim.Close() })
			return n, host
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// reapOrphans does what init does, as long as the test runs.
func reapOrphans(t *testing.T) {
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			worker.ReapOrphans()
			select {
			case <-died:
			case <-over:
				worker.ReapOrphans()
				return
			}
		}
	}()
	t.Cleanup(func() {
		signal.Stop(died)
		close(over)
		<-ended
	})
}

func (s *service) runtime() string    { return filepath.Join(s.dir, "run") }
func (s *service) configFile() string { return filepath.Join(s.dir, s.name+".toml") }
func (s *service) argsFile() string   { return filepath.Join(s.dir, "args") }

// unitOnly keeps the [[socket]] table out of the configuration, where the socket is a .socket unit's.
const unitOnly = "# no [[socket]]\n"

// configure writes the configuration file: extra are further tables, or with a leading "!" the whole text.
func (s *service) configure(extra string) {
	s.t.Helper()
	text, whole := strings.CutPrefix(extra, "!")
	if !whole {
		text = ""
		for _, section := range []struct{ name, text string }{
			{"[worker]", fmt.Sprintf("command = [%q, \"-generation\", \"${generation}\", \"-args\", %q]\n", workerProgram, s.argsFile())},
			{"[ready]", "when = [\"listening\", \"notify\"]\ntimeout = \"10s\"\n"},
			{"[drain]", "settle = \"20ms\"\ntimeout = \"5s\"\n"},
			{"[[socket]]", fmt.Sprintf("name = \"http\"\nlisten = %q\n", s.addr)},
		} {
			if !strings.Contains(extra, section.name) {
				text += section.name + "\n" + section.text
			}
		}
		text += extra
	}
	if err := os.WriteFile(s.configFile(), []byte(strings.ReplaceAll(text, "ADDR", s.addr)), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// arguments sets what the next generation gets in addition (see test/worker).
func (s *service) arguments(args ...string) {
	s.t.Helper()
	if err := os.WriteFile(s.argsFile(), []byte(strings.Join(args, "\n")+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// paused sets that the next generations wait before they take their sockets, until the function that is returned is
// called.
func (s *service) paused(more ...string) (goOn func()) {
	s.t.Helper()
	file := filepath.Join(s.dir, "paused")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.arguments(append(more, "-start-while="+file)...)
	return func() {
		if err := os.Remove(file); err != nil {
			s.t.Error(err)
		}
	}
}

// underWay waits until a second worker is being started beside the first.
func (s *service) underWay() {
	s.t.Helper()
	s.eventually(func() string {
		if n := len(s.processes()); n != 2 {
			return fmt.Sprintf("no reload under way: %d workers", n)
		}
		return ""
	})
}

// queued waits until a reload is queued behind what is under way, whether or not the daemon answers yet.
func (s *service) queued() {
	s.t.Helper()
	s.eventually(func() string {
		c, err := control.Dial(s.ctx(), s.runtime())
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		if st, err := c.Status(s.ctx()); err != nil || !st.Queued {
			return fmt.Sprintf("nothing is queued: %v", err)
		}
		return ""
	})
}

// passed makes a listener at the service's address and has it passed as a .socket unit's.
func (s *service) passed(name string) {
	s.t.Helper()
	host, _, _ := strings.Cut(s.addr, ":")
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: host, Port: 8080})
	if err != nil {
		s.t.Fatal(err)
	}
	defer fd.Close()
	s.manager.AddSocketUnit(s.t, name, fd.Num())
}

// many has so many unix listeners bound by the configuration: they are never steered.
func (s *service) many(count int) {
	s.t.Helper()
	text := unitOnly
	for i := range count {
		text += fmt.Sprintf("[[socket]]\nname = \"s%d\"\nlisten = \"unix:%s/s%d\"\n", i, s.dir, i)
	}
	s.configure(text)
}

func (s *service) logFile() string { return filepath.Join(s.dir, "log") }

// log is what all daemons and workers of this service wrote.
func (s *service) log() string {
	data, err := os.ReadFile(s.logFile())
	if err != nil {
		s.t.Error(err)
	}
	return string(data)
}

// launch starts the daemon with what the manager has for it, and does not wait.
func (s *service) launch() {
	s.t.Helper()
	s.barrier()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for s.manager.WaitReady(over) == nil { // what an earlier program said
	}
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	env, files := s.manager.Environment()
	// os.File.Fd makes the file blocking, which a regular file is anyway.
	out := int(log.Fd())
	argv := []string{s.binary, daemonCommand, s.name, s.configFile(), s.runtime()}
	if len(files) > 0 {
		argv = append([]string{s.binary, "exec-shim", "--"}, argv...)
	}
	s.daemon, err = worker.Start(worker.Command{
		Argv: argv, Env: slices.Concat([]string{"PATH=" + os.Getenv("PATH"), "HOME=/", raceOptions}, env, s.env), Files: append([]int{-1, out, out}, files...),
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// barrier returns when the manager has seen everything that was sent to it.
func (s *service) barrier() {
	s.t.Helper()
	store, err := fdstore.Open(s.manager.Socket)
	if err == nil {
		err = store.Barrier(s.ctx())
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	s.t.Cleanup(cancel)
	return ctx
}

// start launches the daemon and waits for READY=1.
func (s *service) start() {
	s.t.Helper()
	s.launch()
	s.ready()
}

func (s *service) ready() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	daemon := s.daemon
	go func() {
		select {
		case <-daemon.Done():
			// What it sent is in the manager's queue: half a second is enough to read it.
			time.AfterFunc(500*time.Millisecond, cancel)
		case <-ctx.Done():
		}
	}()
	if err := s.manager.WaitReady(ctx); err != nil {
		s.t.Fatal("the daemon does not become ready: ", err)
	}
}

// ended waits for the end of the daemon and returns its status.
func (s *service) ended() sys.Exit {
	s.t.Helper()
	select {
	case <-s.daemon.Done():
	case <-time.After(limit):
		s.t.Fatal("the daemon does not end")
	}
	exit := s.daemon.Exit()
	s.daemon.Release()
	s.daemon = nil
	return exit
}

// kill ends the daemon as nothing else can.
func (s *service) kill() {
	s.t.Helper()
	s.signal(syscall.SIGKILL)
	s.ended()
}

func (s *service) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.daemon.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// stop is systemctl stop.
func (s *service) stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	if exit := s.ended(); exit.Code != 0 || exit.Signal != 0 {
		s.t.Errorf("the daemon ended with %s", worker.ExitString(exit))
	}
}

func (s *service) dial() *control.Client {
	s.t.Helper()
	c, err := control.Dial(s.ctx(), s.runtime())
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *service) status() control.Status {
	s.t.Helper()
	c := s.dial()
	defer c.Close()
	st, err := c.Status(s.ctx())
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

func (s *service) fds() control.FDs {
	s.t.Helper()
	c := s.dial()
	defer c.Close()
	f, err := c.FDs(s.ctx())
	if err != nil {
		s.t.Fatal(err)
	}
	for i := range f.Sockets {
		f.Sockets[i].BacklogUsed = 0 // load comes and goes
	}
	return f
}

// try reloads and returns what the daemon says about it.
func (s *service) try(drained bool) (control.Result, error) {
	c, err := control.Dial(s.ctx(), s.runtime())
	if err != nil {
		return control.Result{}, err
	}
	defer c.Close()
	return c.Reload(s.ctx(), drained, nil)
}

// reload must succeed; it returns when the old generation has gone.
func (s *service) reload() control.Result {
	s.t.Helper()
	r, err := s.try(true)
	if err != nil || !r.OK {
		s.t.Fatalf("reload: %v, %+v", err, r)
	}
	return r
}

// reloadFails must not succeed; it returns the error.
func (s *service) reloadFails() string {
	s.t.Helper()
	r, err := s.try(true)
	if err != nil || r.OK {
		s.t.Fatalf("reload did not fail: %v, %+v", err, r)
	}
	return r.Error
}

func (s *service) cleanup() {
	if s.daemon != nil {
		s.daemon.Signal(syscall.SIGKILL)
		s.ended()
	}
	tree := worker.Tree{Marker: "SUPERVISOR_GENERATION=" + s.name + "/"}
	for !tree.Empty() {
		tree.Signal(syscall.SIGKILL)
		time.Sleep(time.Millisecond)
	}
	log := s.log()
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if strings.Contains(log, bad) {
			s.t.Errorf("the daemon's log holds %q", bad)
		}
	}
	if s.t.Failed() {
		s.t.Logf("log of %s:\n%s", s.name, log[max(0, len(log)-12000):])
	}
	os.RemoveAll(s.dir)
}
