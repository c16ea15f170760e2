package supervisor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/pkg/worker"
)

// alone waits until one generation serves, all others are gone, and its main process is the only one.
func (s *service) alone() (pid, generation int) {
	s.t.Helper()
	s.eventually(func() string {
		st := s.status()
		for i, g := range st.Generations {
			if want := map[bool]string{true: "serving", false: "gone"}[i == 0]; g.State != want {
				return fmt.Sprintf("generation %d is %s", g.N, g.State)
			}
		}
		pid, generation = st.Generations[0].PID, st.Generations[0].N
		return cmp.Diff([]int{pid}, s.processes())
	})
	return pid, generation
}

// crash kills the worker and waits for the next.
func (s *service) crash() {
	s.t.Helper()
	pid, n := s.alone()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	s.replaced(n)
	s.alone()
}

// A worker that binds by itself is served with one and the same socket, whatever ends.
func TestWorkerBinds(t *testing.T) {
	t.Parallel()
	const bind = "[worker]\nsockets = [\"bind\"]\ncommand = [%q, \"-generation\", \"${generation}\", \"-bind=tcp:ADDR\"]\n"
	const takes = "[worker]\ncommand = [%q, \"-generation\", \"${generation}\", \"-args\", %q]\n"
	const fetch = "[handoff]\nfetch = \"pidfd\"\n"
	for _, c := range []struct{ name, config, origin string }{
		{"bind", fmt.Sprintf(bind, workerProgram), "bound"},
		{"bind what was fetched", unitOnly + fmt.Sprintf(bind, workerProgram) + fetch, "fetched"},
		{"pidfd", unitOnly + fetch, "fetched"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, "")
			config := c.config
			if !strings.Contains(config, "[worker]") {
				config += fmt.Sprintf(takes, workerProgram, s.argsFile())
			}
			s.configure(config)
			s.arguments("-bind=tcp:" + s.addr)
			s.start()
			s.arguments() // later generations of "pidfd" take it as LISTEN_FDS
			first := s.fds().Sockets
			if len(first) != 1 || first[0].Address != s.addr || first[0].Origin != c.origin {
				t.Fatalf("held: %+v", first)
			}
			load := s.load()
			for i, step := range []struct {
				name string
				do   func()
			}{
				{"reload", func() { s.reload() }},
				{"kill", func() {
					pid, _ := s.alone()
					s.kill()
					s.start()
					if now, _ := s.alone(); now != pid {
						t.Errorf("worker %d became %d", pid, now)
					}
				}},
				{"reload after an adoption", func() { s.reload() }},
				{"crash", s.crash},
				{"reload after a crash", func() { s.reload() }},
			} {
				step.do()
				_, n := s.alone()
				if want := []int{2, 2, 3, 4, 5}[i]; n != want {
					t.Errorf("%s: generation %d serves, want %d", step.name, n, want)
				}
				held := s.fds().Sockets
				if len(held) != 1 || held[0].Cookie != first[0].Cookie || held[0].Inode != first[0].Inode || held[0].Address != s.addr {
					t.Errorf("%s: held %+v, was %+v", step.name, held, first)
				}
				if answer, err := ask(s.addr); err != nil || !strings.HasSuffix(answer, fmt.Sprint("gen=", n)) {
					t.Errorf("%s: %q, %v", step.name, answer, err)
				}
				if t.Failed() {
					break
				}
			}
			load.endAfter(1)
			s.stop()
		})
	}
}

// bindsItself is a worker that gets its socket by its own bind(2).
func (s *service) bindsItself() string {
	s.binds = true
	return fmt.Sprintf("[worker]\nsockets = [\"bind\"]\ncommand = [%q, \"-generation\", \"${generation}\", \"-bind=tcp:ADDR\", \"-args\", %q]\n", workerProgram, s.argsFile())
}

// inBind waits until a thread of the process waits in bind(2) for an answer.
func (s *service) inBind(pid int) {
	s.t.Helper()
	s.eventually(func() string {
		calls, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
		if err != nil {
			return err.Error()
		}
		for _, file := range calls {
			if text, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(text), fmt.Sprint(syscall.SYS_BIND, " ")) {
				return ""
			}
		}
		return fmt.Sprintf("process %d is not in bind", pid)
	})
}

// What a generation's main process leaves behind may bind as long as the generation drains, also under the next
// supervisor: our address, another, and what is no address at all, as a look-up of names does.
func TestHeirBinds(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.installed()
	s.configure(s.bindsItself() + "[drain]\nsettle = \"20ms\"\ntimeout = \"1h\"\n")
	file := filepath.Join(s.dir, "heir")
	s.arguments("-heir=" + file)
	s.start()
	s.arguments()
	main, _ := s.serving()
	if r, err := s.try(false); err != nil || !r.OK {
		t.Fatal(r, err)
	}
	session := worker.NewTree(worker.Ended(main, 0, worker.Exit{}), "") // the child carries no marker
	heir := 0
	s.eventually(func() string {
		pids, err := session.PIDs()
		if err != nil || len(pids) != 1 || pids[0] == main {
			return fmt.Sprint("processes: ", pids, err)
		}
		heir = pids[0]
		return ""
	})
	specs := []string{"tcp:" + s.addr, "tcp:" + s.other(8081), "udp:" + s.addr, "unix:" + s.dir + "/own", "netlink:"}
	request := func() {
		t.Helper()
		if err := os.WriteFile(file+".temp", []byte(strings.Join(specs, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".temp", file); err != nil {
			t.Fatal(err)
		}
	}
	said := func(when string) {
		t.Helper()
		var text []byte
		s.eventually(func() (problem string) {
			var err error
			if text, err = os.ReadFile(file + ".said"); err != nil {
				return when + ": the bind calls are not answered"
			}
			return ""
		})
		if want := strings.Join(specs, " <nil>\n") + " <nil>\n"; string(text) != want {
			t.Errorf("%s: %q, want %q", when, text, want)
		}
		if err := os.Remove(file + ".said"); err != nil {
			t.Fatal(err)
		}
	}
	request()
	said("while it drains")
	s.kill()
	request()
	s.inBind(heir)
	s.start()
	said("that were made while no supervisor lived")
	s.reexeced()
	request()
	said("after another program took over")
	if g := s.status().Generations[1]; g.State != "draining" || g.PID != main {
		t.Errorf("the draining generation: %+v", g)
	}
	if err := syscall.Kill(heir, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.settled()
	if w := s.warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	s.stop()
}

// A server may take one socket in one way, and bind another by itself.
func TestBindBesideAnotherConvention(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	path := s.dir + "/path"
	s.configure(fmt.Sprintf("[worker]\nsockets = [\"systemd\", \"bind\"]\ncommand = [%q, \"-generation\", \"${generation}\", \"-idle=ADDR\", \"-bind=tcp:ADDR\"]\n"+
		"[[socket]]\nname = \"http\"\nlisten = \"ADDR\"\n[[socket]]\nname = \"path\"\nlisten = \"unix:%s\"\n", workerProgram, path))
	s.start()
	before := s.fds().Sockets
	load := s.load()
	for n := 1; n <= 3; n++ {
		if _, now := s.alone(); now != n {
			t.Fatalf("generation %d serves, not %d", now, n)
		}
		for network, addr := range map[string]string{"tcp": s.addr, "unix": path} {
			if answer, err := askAt(network, addr); err != nil || !strings.HasSuffix(answer, fmt.Sprint("gen=", n)) {
				t.Errorf("%s: %q, %v", network, answer, err)
			}
		}
		if n == 2 {
			s.kill()
			s.start()
		}
		s.reload()
	}
	after := s.fds().Sockets
	for i := range after {
		after[i].Holders, before[i].Holders = nil, nil
	}
	if diff := cmp.Diff(before, after); diff != "" || len(after) != 2 {
		t.Errorf("held: %s", diff)
	}
	load.end()
	if w := s.warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	s.stop()
}

// The supervisor is killed while a worker starts, which binds when there is none: the next one answers, and goes on with the
// handoff. The first start as well as a reload.
func TestBindWhileNobodyAnswers(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.configure(s.bindsItself())
	for n := 1; n <= 3; n++ {
		goOn := s.paused()
		var load *clients
		var old int
		if n == 1 {
			s.launch()
		} else {
			load = s.load()
			old, _ = s.settled()
			s.signal(syscall.SIGHUP)
		}
		s.eventually(func() string { // before that nobody could answer
			if s.barrier(); !slices.Contains(s.manager.Names(), fmt.Sprint("supervisor.bind.", n)) {
				return "no bind is intercepted"
			}
			return ""
		})
		s.kill()
		goOn()
		var newcomer []int
		s.eventually(func() string {
			newcomer = slices.DeleteFunc(s.processes(), func(pid int) bool { return pid == old })
			return cmp.Diff(1, len(newcomer)) // none in the middle of its execve
		})
		s.inBind(newcomer[0])
		s.start()
		s.eventually(func() string {
			if pid, _ := s.serving(); pid != newcomer[0] {
				return fmt.Sprintf("worker %d serves, not %d", pid, newcomer[0])
			}
			return ""
		})
		if _, now := s.settled(); now != n {
			t.Errorf("generation %d serves, not %d", now, n)
		}
		if answer, err := ask(s.addr); err != nil || answer != fmt.Sprintf("pid=%d gen=%d", newcomer[0], n) {
			t.Errorf("%q, %v", answer, err)
		}
		if n > 1 {
			load.end()
		}
	}
	if w := s.warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	s.stop()
}

// The link for the pid file leads to the one of the generation that serves.
func TestPIDLink(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.configure(fmt.Sprintf("[worker]\npid_file = \"${dir}/pid\"\npid_link = \"${runtime}/current.pid\"\n"+
		"command = [%q, \"-args\", %q, \"-pid-file\", \"${dir}/pid\"]\n", workerProgram, s.argsFile()))
	check := func(when string) {
		t.Helper()
		pid, n := s.settled()
		link := filepath.Join(s.runtime(), "current.pid")
		target, err := os.Readlink(link)
		if want := filepath.Join(s.runtime(), fmt.Sprint("generation-", n), "pid"); err != nil || target != want {
			t.Errorf("%s: the link leads to %q, want %q: %v", when, target, want, err)
		}
		if data, err := os.ReadFile(link); err != nil || strings.TrimSpace(string(data)) != strconv.Itoa(pid) {
			t.Errorf("%s: the file holds %q, not %d: %v", when, data, pid, err)
		}
	}
	s.start()
	check("start")
	s.reload()
	check("reload")
	s.crash()
	check("crash")
	s.arguments("-exit=3")
	s.reloadFails()
	check("failed reload")
	s.arguments()
	s.kill()
	s.start()
	check("adoption")
	s.reload()
	check("reload after adoption")
	s.stop()
}

// A drain command is run in the place of the signal and knows whom it drains, under the next supervisor, too.
func TestDrainCommandWhom(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	said := filepath.Join(s.dir, "said")
	s.configure(fmt.Sprintf("[drain]\nsettle = \"20ms\"\ncommand = [\"/bin/sh\", \"-c\", \"echo ${pid} ${generation} >> %s; kill ${pid}\"]\n", said))
	s.start()
	load := s.load()
	want := ""
	drained := func() {
		t.Helper()
		pid, n := s.settled()
		want += fmt.Sprintln(pid, n)
		s.reload()
		if now, next := s.settled(); now == pid || next != n+1 {
			t.Errorf("generation %d (pid %d) follows %d (pid %d)", next, now, n, pid)
		}
		if g := s.status().Generations[1]; g.Exit != "drained: exit code 0" {
			t.Errorf("generation %d: %q", n, g.Exit)
		}
	}
	drained()
	drained()
	s.kill()
	s.start()
	drained()
	load.end()
	pid, n := s.settled()
	want += fmt.Sprintln(pid, n)
	s.stop()
	if data, err := os.ReadFile(said); err != nil || string(data) != want {
		t.Errorf("the command was run for %q, want %q: %v", data, want, err)
	}
}
