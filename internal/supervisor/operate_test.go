package supervisor_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/control"
)

// A reload that fails changes nothing, says why, and the next one works.
func TestFailingReloads(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	load := s.load()
	pid, _ := s.settled()
	held := s.fds()
	worker := fmt.Sprintf("[worker]\ncommand = [%q, \"-generation\", \"${generation}\", \"-args\", %q]\n", workerProgram, s.argsFile())
	taken, err := net.Listen("tcp", strings.Replace(s.addr, ":8080", ":8081", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		name, config string
		args         []string
		words        []string
	}{
		{name: "configuration", config: "!nonsense = true\n", words: []string{"check failed", "nonsense"}},
		{name: "check", config: worker + "check = [\"/bin/sh\", \"-c\", \"echo not today; exit 3\"]\n", words: []string{"check failed", "exit code 3", "not today"}},
		{name: "occupied", config: fmt.Sprintf("[[socket]]\nname = \"other\"\nlisten = %q\n[[socket]]\nname = \"http\"\nlisten = \"ADDR\"\n", taken.Addr()), words: []string{"fetch failed", "8081", "in use"}},
		{name: "no binary", config: "!" + strings.Replace(worker, workerProgram, "/nonexistent/worker", 1), words: []string{"spawn failed", "/nonexistent/worker"}},
		{name: "exits", args: []string{"-exit=3"}, words: []string{"ready failed", "exit code 3"}},
		{name: "never ready", args: []string{"-never-ready"}, config: "[ready]\nwhen = [\"notify\"]\ntimeout = \"300ms\"\n", words: []string{"ready failed", "READY=1"}},
		{name: "hangs", args: []string{"-hang"}, config: "[ready]\nwhen = [\"listening\"]\ntimeout = \"300ms\"\n", words: []string{"ready failed", `"http"`}},
		{name: "dies while stable", args: []string{"-ready-then-die=1ms"}, config: "[ready]\nwhen = [\"listening\"]\nstable = \"5s\"\n", words: []string{"ready failed", "exit code 1"}},
		{name: "placeholder", config: worker + "environment = { X = \"${fd:nobody}\" }\n", words: []string{"spawn failed", "nobody"}},
	} {
		s.arguments(c.args...)
		s.configure(c.config)
		message := s.reloadFails()
		for _, w := range append(c.words, fmt.Sprintf("(pid %d) keeps serving", pid)) {
			if !strings.Contains(message, w) {
				t.Errorf("%s: %q does not say %q", c.name, message, w)
			}
		}
		if now, _ := s.settled(); now != pid {
			t.Errorf("%s: pid %d became %d", c.name, pid, now)
		}
		if diff := cmp.Diff(held, s.fds()); diff != "" {
			t.Errorf("%s: held sockets: %s", c.name, diff)
		}
		s.configure("")
		s.arguments()
		s.reload()
		pid, _ = s.settled()
		held = s.fds()
	}
	load.end()
	s.stop()
}

// A crashed worker refuses nothing: connections wait for the next one.
func TestCrash(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	load := s.load()
	for i := range 3 {
		pid, n := s.settled()
		syscall.Kill(pid, syscall.SIGKILL)
		s.eventually(func() string {
			if st := s.status(); st.State != "serving" || st.Generations[0].N == n {
				return "no worker came"
			}
			return ""
		})
		if _, n := s.settled(); n != i+2 {
			t.Errorf("generation %d follows", n)
		}
	}
	load.endAfter(3)
	s.stop()
}

// A crashed worker is replaced also where systemd's store has no room for what is known of the next one.
func TestCrashWithFullStore(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	load := s.load()
	pid, _ := s.settled()
	s.manager.SetMax(2)
	syscall.Kill(pid, syscall.SIGKILL)
	s.eventually(func() string {
		if st := s.status(); st.State != "serving" || st.Generations[0].N != 2 {
			return "no worker came"
		}
		return ""
	})
	s.eventually(func() string {
		if len(s.warnings("FileDescriptorStoreMax=")) == 0 {
			return "nobody says that the store is full"
		}
		return ""
	})
	pid, n := s.serving()
	s.kill()
	s.start()
	if now, m := s.serving(); now != pid || m != n {
		t.Errorf("generation %d (pid %d) serves, before the supervisor was killed %d (pid %d)", m, now, n, pid)
	}
	s.manager.SetMax(fdstoreMax)
	for range 3 { // the half that the store lost is made again when nobody has it any more, and nobody is in its slot
		s.reload()
	}
	s.settled()
	load.endAfter(1)
	s.stop()
}

// A worker that dies again and again is started with growing pauses, and a reload with better arguments ends that.
func TestCrashLoop(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	s.settled()
	s.arguments("-ready-then-die=100ms")
	for { // on a busy machine it may die before it is seen to be ready
		if r, err := s.try(false); err != nil {
			t.Fatal(err)
		} else if r.OK {
			break
		}
	}
	s.eventually(func() string {
		r := s.status().Restart
		if r == nil || r.Attempt < 4 {
			return "no pauses"
		}
		if !strings.Contains(r.Reason, "exit code 1") {
			t.Errorf("reason: %q", r.Reason)
		}
		return ""
	})
	for _, pause := range []string{"100ms", "200ms", "400ms"} {
		if len(s.warnings("the next start of the worker is in "+pause)) != 1 {
			t.Errorf("no pause of %s: %q", pause, s.warnings("next start"))
		}
	}
	answered := make(chan error, 1)
	go func() {
		_, err := ask(s.addr)
		answered <- err
	}()
	s.arguments()
	s.reload()
	s.settled()
	if err := <-answered; err != nil {
		t.Error("a client that came while no worker was there: ", err)
	}
	s.stop()
}

// The old worker dies while the new one starts: what waits for the old one is served, and what comes goes to the new one.
func TestOldDiesDuringReload(t *testing.T) {
	t.Parallel()
	s := newService(t, "[ready]\ntimeout = \"10s\"\nwhen = [\"listening\"]\n")
	s.start()
	for range 2 { // each slot once
		pid, _ := s.settled()
		goOn := s.paused()
		done := make(chan control.Result, 1)
		go func() {
			r, err := s.try(true)
			if err != nil {
				r.Error += err.Error()
			}
			done <- r
		}()
		s.underWay()
		syscall.Kill(pid, syscall.SIGKILL)
		load := s.load()
		goOn()
		if r := <-done; !r.OK {
			t.Errorf("reload: %+v", r)
		}
		s.arguments()
		s.settled()
		load.endAfter(1)
	}
	s.stop()
}

// Of three reloads at once the second is queued, and the third shares its result.
func TestReloadsAtOnce(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	s.settled()
	s.arguments("-start-delay=2s")
	results := make(chan control.Result, 3)
	for range 3 {
		go func() {
			r, err := s.try(false)
			if err != nil {
				t.Error(err)
			}
			results <- r
		}()
	}
	generations := map[int]int{}
	for range 3 {
		r := <-results
		if !r.OK {
			t.Error(r.Error)
		}
		generations[r.Generation]++
	}
	if diff := cmp.Diff(map[int]int{2: 1, 3: 2}, generations); diff != "" {
		t.Error(diff)
	}
	s.settled()
	s.stop()
}

func TestReloadDuringStart(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	goOn := s.paused()
	s.launch()
	s.eventually(func() string {
		c, err := control.Dial(s.ctx(), s.runtime())
		if err != nil {
			return err.Error()
		}
		c.Close()
		return ""
	})
	done := make(chan control.Result, 1)
	go func() {
		r, err := s.try(true)
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	s.queued()
	goOn()
	if r := <-done; !r.OK || r.Generation != 2 {
		t.Errorf("%+v", r)
	}
	s.ready()
	s.settled()
	s.stop()
}

// If the first start fails, and the reload that was asked for meanwhile fails too, the service has failed: a supervisor
// without a worker would only look like one.
func TestReloadDuringFailingStart(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	goOn := s.paused("-exit=3")
	s.launch()
	s.eventually(func() string {
		c, err := control.Dial(s.ctx(), s.runtime())
		if err != nil {
			return err.Error()
		}
		c.Close()
		return ""
	})
	s.signal(syscall.SIGHUP)
	s.queued()
	goOn()
	if exit := s.ended(); exit.Code != 1 || !strings.Contains(s.log(), "cannot start") {
		t.Errorf("the daemon ended with %+v", exit)
	}
	s.stopped()
}

// A SIGHUP before there is anything to reload is not lost, and ends nobody.
func TestSignalDuringStart(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	goOn := s.paused()
	s.launch()
	s.eventually(func() string {
		if _, err := os.Stat(s.runtime()); err != nil {
			return err.Error()
		}
		return ""
	})
	s.signal(syscall.SIGHUP)
	s.queued()
	goOn()
	s.ready()
	s.eventually(func() string {
		if _, n := s.serving(); n != 2 {
			return "the reload was lost"
		}
		return ""
	})
	s.settled()
	s.stop()
}

// A reload goes on without the client that asked for it.
func TestReloadClientVanishes(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	s.settled()
	goOn := s.paused()
	ctx, cancel := context.WithCancel(context.Background())
	c := s.dial()
	result := make(chan error, 1)
	go func() {
		_, err := c.Reload(ctx, false, nil)
		result <- err
	}()
	s.underWay()
	cancel()
	if err := <-result; err == nil {
		t.Error("a result came after all")
	}
	c.Close()
	goOn()
	s.eventually(func() string {
		if _, n := s.serving(); n != 2 {
			return "the reload was given up"
		}
		return ""
	})
	s.settled()
	s.stop()
}

// stopped checks what a stop leaves.
func (s *service) stopped() {
	s.t.Helper()
	if left := s.processes(); len(left) > 0 {
		s.t.Errorf("left after the stop: %v", left)
	}
	s.barrier() // the manager has the sockets until it has read that it is to drop them
	if _, err := net.DialTimeout("tcp", s.addr, time.Second); err == nil {
		s.t.Error("the port does not refuse after the stop")
	}
	if names := s.manager.Names(); len(names) > 1 || len(names) == 1 && names[0] != "supervisor.state" {
		s.t.Errorf("stored after the stop: %v", names)
	}
	if entries, err := os.ReadDir(s.runtime()); err == nil {
		for _, e := range entries {
			if e.Name() != "notify" && e.Name() != "identity" {
				s.t.Errorf("%s is left in the runtime directory", e.Name())
			}
		}
	}
}

func TestStopDuringReload(t *testing.T) {
	t.Parallel()
	for _, order := range []string{"start-first", "signal-first"} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			s := newService(t, "[handoff]\norder = \""+order+"\"\n")
			s.start()
			s.arguments("-hang")
			done := make(chan control.Result, 2)
			for range 2 { // one runs, one is queued
				go func() {
					r, err := s.try(false)
					if err != nil {
						t.Error(err)
					}
					done <- r
				}()
			}
			s.eventually(func() string {
				if st := s.status(); !st.Queued || st.Generations[0].N != 2 || st.Generations[0].PID == 0 {
					return "no reload under way"
				}
				return ""
			})
			s.stop()
			for range 2 {
				if r := <-done; r.OK || !strings.Contains(r.Error, "stopping") {
					t.Errorf("%+v", r)
				}
			}
			s.stopped()
		})
	}
}

// With signal-first a reload that fails has ended a good worker: it comes back at once, however many such reloads there were.
func TestFailedReloadDelaysNobody(t *testing.T) {
	t.Parallel()
	s := newService(t, "[handoff]\norder = \"signal-first\"\n")
	s.start()
	good, err := os.ReadFile(s.configFile())
	if err != nil {
		t.Fatal(err)
	}
	bad := strings.Replace(string(good), "command = [", "command = [\"/bin/false\", ", 1)
	if err := os.WriteFile(s.configFile(), []byte(bad), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		s.reloadFails()
		s.eventually(func() string {
			if g := s.status().Generations[0]; g.State != "serving" {
				return fmt.Sprintf("generation %d is %s", g.N, g.State)
			}
			return ""
		})
	}
	if log := s.log(); strings.Contains(log, "the next start of the worker is in") {
		t.Errorf("a good worker waited:\n%s", log)
	}
}

func TestStopDuringStart(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.arguments("-hang")
	s.launch()
	s.eventually(func() string {
		if len(s.processes()) == 0 {
			return "no worker"
		}
		return ""
	})
	s.stop()
	s.stopped()
}

// A worker that ignores every signal is killed; a second SIGTERM does not wait for that.
func TestStopIgnored(t *testing.T) {
	t.Parallel()
	for _, hurry := range []bool{false, true} {
		t.Run(fmt.Sprint("hurry ", hurry), func(t *testing.T) {
			t.Parallel()
			timeout := map[bool]string{false: "200ms", true: "1h"}[hurry]
			s := newService(t, "[drain]\ntimeout = \""+timeout+"\"\nescalate = [\"SIGTERM\", \"100ms\", \"SIGKILL\"]\n")
			s.arguments("-ignore-term", "-child")
			s.start()
			s.signal(syscall.SIGTERM)
			if hurry {
				s.eventually(func() string {
					if !strings.Contains(s.status().State, "stopping") {
						return "not stopping"
					}
					return ""
				})
				s.signal(syscall.SIGTERM)
			}
			if exit := s.ended(); exit.Code != 0 {
				t.Errorf("exit %+v", exit)
			}
			s.stopped()
		})
	}
}

// A first worker that cannot start is the end of the daemon, with the reason; the unit's socket is not lost.
func TestStartFails(t *testing.T) {
	t.Parallel()
	s := newService(t, unitOnly)
	s.passed("http")
	s.arguments("-exit=3")
	s.launch()
	if exit := s.ended(); exit.Code != 1 {
		t.Errorf("exit %+v", exit)
	}
	if log := s.log(); !strings.Contains(log, "cannot start "+s.name) || !strings.Contains(log, "exit code 3") {
		t.Error("the reason is not said")
	}
	if left := s.processes(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	s.arguments()
	s.start()
	if answer, err := ask(s.addr); err != nil {
		t.Error(answer, err)
	}
	s.stop()
}
