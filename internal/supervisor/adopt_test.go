package supervisor_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/fdstore"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// The worker of a supervisor that was killed goes on, and the next one tells the same story.
func TestAdoption(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	load := s.load()
	s.reload()
	pid, n := s.settled()
	before, names := s.status(), s.manager.Names()
	for range 5 {
		s.kill()
		s.start()
		if newPID, newN := s.settled(); newPID != pid || newN != n {
			t.Fatalf("generation %d (pid %d) became %d (pid %d)", n, pid, newN, newPID)
		}
	}
	after := s.status()
	if diff := cmp.Diff(names, s.manager.Names()); diff != "" {
		t.Errorf("store: %s", diff)
	}
	if !after.Generations[0].Adopted || after.Since != before.Since || len(after.Handoffs) != len(before.Handoffs) {
		t.Errorf("status before: %+v\nafter: %+v", before, after)
	}
	if len(s.warnings()) > 0 {
		t.Errorf("warnings: %q", s.warnings())
	}
	s.reload()
	if _, n := s.settled(); n != 3 {
		t.Errorf("the generation after an adoption is %d", n)
	}
	load.end()
	s.stop()
}

// A worker that starts a child for each request loses none of them to an adoption, whenever it was started.
func TestAdoptForkingWorker(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	pid, _ := s.settled()
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for n := 0; ; n++ {
				body, err := get("tcp", s.addr, "/child?ms=5")
				if err != nil || !strings.HasSuffix(body, "child: <nil>\n") {
					t.Errorf("request %d: %q, %v", n, body, err)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for range 5 {
		s.kill()
		s.start()
	}
	close(stop)
	clients.Wait()
	if now, _ := s.settled(); now != pid {
		t.Errorf("worker %d is followed by %d", pid, now)
	}
	if w := s.warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	s.stop()
}

// A draining generation goes on draining with its deadline under the next supervisor, which escalates when that is over.
func TestAdoptDraining(t *testing.T) {
	t.Parallel()
	s := newService(t, "[drain]\nsettle = \"0s\"\ntimeout = \"1h\"\nescalate = [\"SIGKILL\"]\n")
	s.arguments("-ignore-term")
	s.start()
	old, _ := s.settled()
	s.arguments()
	if r, err := s.try(false); err != nil || !r.OK {
		t.Fatal(r, err)
	}
	var deadline time.Time
	s.eventually(func() string {
		if deadline = s.status().Generations[1].Deadline; deadline.IsZero() {
			return "the drain has no deadline"
		}
		return ""
	})
	s.kill()
	s.eventually(func() string { // so that a new deadline would differ
		if left := time.Until(deadline); left > time.Hour-2*time.Second {
			return fmt.Sprintf("the deadline is in %s", left)
		}
		return ""
	})
	s.start()
	g := s.status().Generations[1]
	if g.PID != old || g.State != "draining" || g.Deadline.Sub(deadline).Abs() > time.Second {
		t.Errorf("after the adoption: %+v, deadline was %s", g, deadline)
	}
	s.kill()
	s.edit(func(st map[string]any) {
		for _, g := range st["generations"].([]any) {
			if g := g.(map[string]any); g["state"] == "draining" {
				g["deadline"] = 1 // long ago
			}
		}
	})
	s.start()
	s.settled()
	if g := s.status().Generations[1]; g.PID != old || !strings.Contains(g.Exit, "SIGKILL") {
		t.Errorf("the drained generation: %+v", g)
	}
	s.stop()
}

// The worker dies while no supervisor is there.
func TestWorkerDiesAlone(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	pid, _ := s.settled()
	s.kill()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	load := s.load()
	s.start()
	if _, n := s.settled(); n != 2 {
		t.Errorf("generation %d serves", n)
	}
	load.end()
	s.stop()
}

// How a worker ended is told also if it ended under no supervisor, or under another than its own, where the kernel tells.
func TestStatusOfAdoptedWorker(t *testing.T) {
	t.Parallel()
	for name, watched := range map[string]bool{"alone": false, "adopted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, "")
			s.arguments("-stop-exit=7")
			s.start()
			s.arguments()
			pid, _ := s.settled()
			s.kill()
			if watched {
				s.start()
			}
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			s.eventually(func() string { // reaped: then only a pidfd knows it
				if syscall.Kill(pid, 0) == nil {
					return "the worker does not end"
				}
				return ""
			})
			if !watched {
				s.start()
			}
			if _, n := s.settled(); n != 2 {
				t.Errorf("generation %d serves", n)
			}
			if g := s.status().Generations[1]; !strings.Contains(g.Exit, "exit code 7") && tellsStatus(t) {
				t.Errorf("the worker that ended: %+v", g)
			}
			s.stop()
		})
	}
}

// tellsStatus reports whether this kernel knows how somebody else's child ended (Linux 6.15).
func tellsStatus(t *testing.T) bool {
	var name syscall.Utsname
	if err := syscall.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var release []byte
	for _, c := range name.Release {
		release = append(release, byte(c))
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(release), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major > 6 || major == 6 && minor >= 15
}

// What a dead worker left behind is not left alone, whether or not it carries the marker, and whatever its worker was doing.
func TestAdoptOrphans(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(g map[string]any){
		"serving":  func(map[string]any) {},
		"starting": func(g map[string]any) { g["state"] = "starting" },
		"crashed":  func(g map[string]any) { g["state"], g["crashed"] = "draining", true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, "[drain]\ntimeout = \"1h\"\n")
			s.arguments("-child")
			s.start()
			s.arguments()
			main, _ := s.serving()
			session := worker.NewTree(worker.Ended(main, 0, worker.Exit{}), "") // the child carries no marker
			s.kill()
			syscall.Kill(main, syscall.SIGKILL)
			s.eventually(func() string {
				if left, err := session.PIDs(); err != nil || len(left) != 1 || left[0] == main {
					return fmt.Sprintf("left are %v, %v", left, err)
				}
				return ""
			})
			s.edit(func(st map[string]any) { spoil(st["generations"].([]any)[0].(map[string]any)) })
			s.start()
			if left, err := session.PIDs(); err != nil || len(left) > 0 {
				t.Errorf("still left are %v, %v", left, err)
			}
			s.settled()
			if w := s.warnings(); len(w) != 1 || !strings.Contains(w[0], "left behind is killed") {
				t.Errorf("warnings: %q", w)
			}
			s.stop()
		})
	}
}

// edit changes the stored state: of two the newer, since the daemon may have been killed while it wrote.
func (s *service) edit(change func(state map[string]any)) {
	s.t.Helper()
	s.barrier()
	var newest map[string]any
	for _, e := range s.manager.Entries() {
		if !strings.HasPrefix(e.Name, "supervisor.state") {
			continue
		}
		data, err := sys.ReadMemfd(e.FD.Num(), 1<<20)
		if err != nil {
			s.t.Fatal(err)
		}
		var state map[string]any
		if err := json.Unmarshal(data, &state); err != nil {
			s.t.Fatal(err)
		}
		if newest == nil || state["sequence"].(float64) > newest["sequence"].(float64) {
			newest = state
		}
	}
	if newest == nil {
		s.t.Fatal("no state is stored")
	}
	change(newest)
	data, err := json.Marshal(newest)
	if err != nil {
		s.t.Fatal(err)
	}
	s.forget("supervisor.state")
	s.replaceState(data)
}

func (s *service) store() *fdstore.Store {
	store, err := fdstore.Open(s.manager.Socket)
	if err != nil {
		s.t.Fatal(err)
	}
	return store
}

// replaceState puts states in the place of the stored one.
func (s *service) replaceState(states ...[]byte) {
	s.t.Helper()
	if err := s.store().Remove("supervisor.state"); err != nil {
		s.t.Fatal(err)
	}
	for i, data := range states {
		fd, err := sys.SealedMemfd("state", data)
		if err != nil {
			s.t.Fatal(err)
		}
		name := []string{"supervisor.state", "supervisor.state.next"}[i]
		if err := s.store().Add(name, fd.Num(), false); err != nil {
			s.t.Fatal(err)
		}
		fd.Close()
	}
}

// state is the stored state.
func (s *service) state() (data []byte) {
	s.t.Helper()
	for _, e := range s.manager.Entries() {
		if e.Name == "supervisor.state" {
			var err error
			if data, err = sys.ReadMemfd(e.FD.Num(), 1<<20); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	return data
}

func (s *service) forget(prefixes ...string) {
	s.t.Helper()
	s.barrier()
	for _, name := range s.manager.Names() {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			if err := s.store().Remove(name); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// A restart of the service owes a handoff to a new worker: a supervisor that dies before it has come to that leaves it to
// the next one.
func TestOwedHandoff(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	s.settled()
	s.kill()
	s.edit(func(st map[string]any) { st["handoff_wanted"] = true })
	checking, goOn := filepath.Join(s.dir, "checking"), filepath.Join(s.dir, "go-on")
	s.configure(fmt.Sprintf("[worker]\ncommand = [%q, \"-generation\", \"${generation}\", \"-args\", %q]\ncheck = [\"/bin/sh\", \"-c\", %q]\n",
		workerProgram, s.argsFile(), fmt.Sprintf("touch %s; until [ -e %s ]; do sleep 0.01; done", checking, goOn)))
	s.start()
	s.eventually(func() string {
		if _, err := os.Stat(checking); err != nil {
			return "no handoff has begun"
		}
		return ""
	})
	s.kill()
	if err := os.WriteFile(goOn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.eventually(func() string {
		if _, n := s.serving(); n != 2 {
			return "the worker is the old one"
		}
		return ""
	})
	s.settled()
	s.kill()
	s.start()
	if _, n := s.settled(); n != 2 {
		t.Errorf("generation %d serves: the handoff was done twice", n)
	}
	s.stop()
}

// What the last supervisor left is broken in every way: one warning each at most, the port never refuses, and the
// next reload works.
func TestBrokenInheritance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		spoil   func(s *service)
		warning string // words of the only warning, empty for none
		same    bool   // the worker keeps its pid
	}{
		{"state corrupt", func(s *service) { s.replaceState([]byte(`{"version":1,`)) }, "does not parse", true},
		{"state empty", func(s *service) { s.replaceState(nil) }, "does not parse", true},
		{"state newer", func(s *service) { s.edit(func(st map[string]any) { st["version"] = 99 }) }, "format 99", true},
		{"state of another service", func(s *service) { s.edit(func(st map[string]any) { st["name"] = "other" }) }, "other", true},
		{"state missing", func(s *service) { s.forget("supervisor.state") }, "no state describes", true},
		{"state no memfd", func(s *service) {
			s.forget("supervisor.state")
			fd, other, err := sys.Socketpair(syscall.SOCK_STREAM)
			if err != nil {
				s.t.Fatal(err)
			}
			other.Close()
			s.store().Add("supervisor.state", fd.Num(), false)
			fd.Close()
		}, "state of the last supervisor is not used", true},
		{"two states", func(s *service) {
			newer := s.state()
			var st map[string]any
			json.Unmarshal(newer, &st)
			st["sequence"], st["generations"] = 1, nil
			older, _ := json.Marshal(st)
			s.replaceState(older, newer)
		}, "", true},
		{"two states, the newer corrupt", func(s *service) { s.replaceState(s.state(), []byte("{")) }, "does not parse", true},
		{"only the next state", func(s *service) {
			data := s.state()
			s.replaceState(data, data)
			s.store().Remove("supervisor.state")
		}, "", true},
		{"sockets without state or worker", func(s *service) {
			s.killWorkers()
			s.forget("supervisor.state", "supervisor.worker", "supervisor.notify")
		}, "that no state describes", false},
		{"state without sockets", func(s *service) {
			s.killWorkers()
			s.forget("supervisor.socket", "supervisor.alternate")
		}, "missing in the FD store", false},
		{"worker without pidfd", func(s *service) { s.forget("supervisor.worker") }, "", true},
		{"worker without notify socket", func(s *service) { s.forget("supervisor.notify") }, "", true},
		{"dead pidfd", func(s *service) { s.killWorkers() }, "", false},
		{"pidfd is none", func(s *service) {
			s.forget("supervisor.worker")
			r, w, err := sys.Pipe()
			if err != nil {
				s.t.Fatal(err)
			}
			s.store().Add(fmt.Sprint("supervisor.worker.", s.lastN()), r.Num(), false)
			r.Close()
			w.Close()
		}, "not a pidfd", true},
		{"pidfd of another process", func(s *service) {
			s.forget("supervisor.worker")
			fd, err := sys.PidfdOpen(1)
			if err != nil {
				s.t.Fatal(err)
			}
			s.store().Add(fmt.Sprint("supervisor.worker.", s.lastN()), fd.Num(), false)
			fd.Close()
		}, "pidfd is of process 1", true},
		{"stranger", func(s *service) {
			fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
			if err != nil {
				s.t.Fatal(err)
			}
			s.store().Add("supervisor.nonsense", fd.Num(), false)
			fd.Close()
		}, "no such entry is known", true},
		{"socket entry is none", func(s *service) {
			fd, err := sys.SealedMemfd("x", []byte("x"))
			if err != nil {
				s.t.Fatal(err)
			}
			s.store().Add("supervisor.socket.x", fd.Num(), false)
			fd.Close()
		}, "is no socket", true},
		{"bundle is none", func(s *service) {
			fd, err := sys.SealedMemfd("x", []byte("x"))
			if err != nil {
				s.t.Fatal(err)
			}
			s.store().Add("supervisor.bundle.1", fd.Num(), false)
			fd.Close()
		}, "supervisor.bundle.1", true},
		{"worker that nobody described", func(s *service) {
			s.edit(func(st map[string]any) { st["generations"] = nil })
		}, "no state describes", true},
		{"configuration of the worker unreadable", func(s *service) {
			s.edit(func(st map[string]any) {
				for sum := range st["configs"].(map[string]any) {
					st["configs"].(map[string]any)[sum] = "no TOML"
				}
			})
		}, "", true},
	} {
		for slot := range 2 {
			t.Run(fmt.Sprintf("%s, slot %d", c.name, slot), func(t *testing.T) {
				t.Parallel()
				s := newService(t, "")
				s.start()
				if slot == 1 {
					s.reload()
				}
				pid, _ := s.settled()
				s.kill()
				s.barrier()
				c.spoil(s)
				s.start()
				after, _ := s.settled()
				if (after == pid) != c.same {
					t.Errorf("worker %d is followed by %d", pid, after)
				}
				warnings := s.warnings()
				if c.warning == "" && len(warnings) > 0 || c.warning != "" && (len(warnings) != 1 || !strings.Contains(warnings[0], c.warning)) {
					t.Errorf("warnings: %q, want one with %q", warnings, c.warning)
				}
				if said := strings.Contains(s.log(), "the FD store holds two states"); said != (c.name == "two states") {
					t.Errorf("it is said that there are two states: %t", said)
				}
				if f := s.fds(); len(f.Sockets) != 1 || f.Sockets[0].Origin != "bound" {
					t.Errorf("held: %+v", f.Sockets)
				}
				load := s.load()
				if answer, err := ask(s.addr); err != nil {
					t.Fatal("before the next reload: ", answer, err)
				}
				s.reload()
				s.reload()
				s.settled()
				load.end()
				s.stop()
			})
		}
	}
}

// The kernel has the halves of a pair in the other order where a reload added the socket. That is known without the state,
// too: with the wrong order all that arrives would wait where nobody accepts.
func TestAddedSocketWithoutState(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(s *service){
		"newer":   func(s *service) { s.edit(func(st map[string]any) { st["version"] = 99 }) },
		"corrupt": func(s *service) { s.replaceState([]byte("{")) },
		"missing": func(s *service) { s.forget("supervisor.state") },
		"entries of old": func(s *service) { // which told the order in the state only
			s.barrier()
			for _, e := range s.manager.Entries() {
				if name, ok := strings.CutPrefix(e.Name, "supervisor.alternate-first."); ok {
					fd, err := e.FD.Dup()
					if err != nil {
						s.t.Fatal(err)
					}
					defer fd.Close()
					s.forget(e.Name)
					if err := s.store().Add("supervisor.alternate."+name, fd.Num(), false); err != nil {
						s.t.Fatal(err)
					}
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, "")
			s.start()
			more := fmt.Sprintf("[[socket]]\nname = \"http\"\nlisten = \"ADDR\"\n[[socket]]\nname = \"more\"\nlisten = %q\n", s.other(8081))
			s.configure(more)
			s.reload()
			added := []string{"supervisor.socket.more", "supervisor.alternate-first.more"}
			pid, _ := s.settled(added...)
			s.kill()
			spoil(s)
			s.start()
			if now, _ := s.serving(); now != pid {
				t.Errorf("worker %d is followed by %d", pid, now)
			}
			for range 3 {
				now, _ := s.serving()
				for _, addr := range []string{s.addr, s.other(8081)} {
					for range 5 {
						if answer, err := ask(addr); err != nil || !strings.HasPrefix(answer, fmt.Sprintf("pid=%d ", now)) {
							t.Fatalf("%s, where worker %d serves: %q, %v", addr, now, answer, err)
						}
					}
				}
				s.reload()
			}
			s.settled(added...)
			s.stop()
		})
	}
}

// Nor is the order lost that a repair changes: who listens anew comes last.
func TestHealedPairWithoutState(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.arguments("-accept=epoll", "-shutdown")
	s.start()
	s.arguments()
	s.reload()
	s.settled()
	s.reload() // finds the half of the first generation shut down
	pid, _ := s.settled()
	if n := len(s.warnings("listens again")); n != 1 || !slices.Contains(s.manager.Names(), "supervisor.alternate-first.http") {
		t.Errorf("warnings %q, stored %q", s.warnings(), s.manager.Names())
	}
	s.kill()
	s.forget("supervisor.state")
	s.start()
	for range 3 {
		s.settled()
		load := s.load()
		if answer, err := ask(s.addr); err != nil || !strings.HasPrefix(answer, fmt.Sprintf("pid=%d ", pid)) {
			t.Fatalf("worker %d serves: %q, %v", pid, answer, err)
		}
		s.reload()
		load.end()
		pid, _ = s.settled()
	}
	s.stop()
}

// Sockets that the FD store has lost are taken back from the worker that serves on them, and stored again. Where that
// accepts on the second half of a pair, the first may be lost for good.
func TestStoreHasLostSockets(t *testing.T) {
	t.Parallel()
	for _, prefixes := range [][]string{{"supervisor.socket"}, {"supervisor.alternate"}, {"supervisor.socket", "supervisor.alternate"}} {
		for slot := range 2 {
			t.Run(fmt.Sprintf("%q, slot %d", prefixes, slot), func(t *testing.T) {
				t.Parallel()
				s := newService(t, "")
				s.start()
				if slot == 1 {
					s.reload()
				}
				pid, _ := s.settled()
				load := s.load()
				s.kill()
				s.forget(prefixes...)
				s.start()
				if now, _ := s.serving(); now != pid {
					t.Errorf("worker %d is followed by %d", pid, now)
				}
				f := s.fds()
				if len(f.Sockets) != 1 || !f.Sockets[0].Stored || f.Sockets[0].Origin != "bound" {
					t.Errorf("held: %+v", f.Sockets)
				}
				s.kill() // and nothing is missing now
				s.start()
				for range 3 {
					s.reload()
				}
				s.settled()
				load.end()
				if w := s.warnings(); len(w) != 1 || !strings.Contains(w[0], "missing in the FD store") {
					t.Errorf("warnings: %q", w)
				}
				s.stop()
			})
		}
	}
}

// What the supervisor bound is its own without the state, too: it goes when the configuration leaves it out, and its file
// goes with it, unless somebody else's has taken that place.
func TestRemovalWithoutState(t *testing.T) {
	t.Parallel()
	for name, taken := range map[string]bool{"own file": false, "file of another": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, "")
			path := filepath.Join(s.dir, "path")
			s.configure(fmt.Sprintf("[[socket]]\nname = \"http\"\nlisten = \"ADDR\"\n[[socket]]\nname = \"more\"\nlisten = %q\n"+
				"[[socket]]\nname = \"path\"\nlisten = \"unix:%s\"\n", s.other(8081), path))
			s.start()
			s.kill()
			s.forget("supervisor.state")
			if taken {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				other, err := net.Listen("unix", path)
				if err != nil {
					t.Fatal(err)
				}
				defer other.Close()
			}
			s.start()
			for _, k := range s.fds().Sockets {
				if k.Origin != "bound" {
					t.Errorf("held: %+v", k)
				}
			}
			s.configure("")
			s.reload()
			s.settled()
			if f := s.fds(); len(f.Sockets) != 1 {
				t.Errorf("held: %+v", f.Sockets)
			}
			if _, err := ask(s.other(8081)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("the socket that was left out: %v", err)
			}
			if _, err := os.Lstat(path); (err == nil) != taken {
				t.Errorf("its file: %v", err)
			}
			s.stop()
		})
	}
}

// lastN is the number of the last generation, as the state says.
func (s *service) lastN() (n int) {
	s.edit(func(st map[string]any) { n = int(st["generation"].(float64)) })
	return n
}

// Processes that a draining generation's main process left behind go on until the deadline, also under the next
// supervisor.
func TestAdoptWhatOutlivedItsMainProcess(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"kill", "reexec"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := newService(t, "[drain]\ntimeout = \"1h\"\nsettle = \"20ms\"\n")
			s.arguments("-child")
			s.start()
			s.arguments()
			main, _ := s.serving()
			session := worker.NewTree(worker.Ended(main, 0, worker.Exit{}), "") // the child carries no marker
			members := func() []int {
				pids, err := session.PIDs()
				if err != nil {
					t.Fatal(err)
				}
				return pids
			}
			if r, err := s.try(false); err != nil || !r.OK {
				t.Fatal(r, err)
			}
			s.eventually(func() string {
				if pids := members(); len(pids) != 1 || slices.Contains(pids, main) {
					return fmt.Sprint("processes: ", pids)
				}
				return ""
			})
			before := members()
			for range 2 {
				switch how {
				case "kill":
					s.kill()
					s.start()
				case "reexec":
					s.reexeced()
				}
				g := s.status().Generations[1]
				if g.State != "draining" || g.PID != main || g.Deadline.IsZero() {
					t.Errorf("the draining generation: %+v", g)
				}
				if diff := cmp.Diff(before, members()); diff != "" {
					t.Error("processes: ", diff)
				}
			}
			syscall.Kill(before[0], syscall.SIGKILL)
			s.settled()
			if len(s.warnings()) > 0 {
				t.Errorf("warnings: %q", s.warnings())
			}
			s.stop()
		})
	}
}

// killWorkers ends the workers while no supervisor is there.
func (s *service) killWorkers() {
	for _, pid := range s.processes() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	s.eventually(func() string {
		if left := s.processes(); len(left) > 0 {
			return fmt.Sprint("still there: ", left)
		}
		return ""
	})
}
