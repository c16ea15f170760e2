//go:build fault

package supervisor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/sys"
)

func (s *service) faultFile() string { return filepath.Join(s.dir, "fault") }

const quickDrain = "[drain]\nsettle = \"10ms\"\ntimeout = \"5s\"\nidle = \"1ms\"\n"

// faulty makes a service whose daemon does what the fault file says.
func faulty(t *testing.T, order string) *service {
	s := newService(t, "[handoff]\norder = \""+order+"\"\n"+quickDrain)
	s.env = []string{"SUPERVISOR_FAULT_FILE=" + s.faultFile()}
	return s
}

// steps are what every handoff passes, with its drain.
var steps = []string{"check", "fetch", "store", "spawn", "ready", "reconcile", "switch", "divert", "idle", "signal"}

// points returns what a reload passes, from its start to the end of the old generation: "NAME#N" for the N-th time.
func (s *service) points() (points []string) {
	s.t.Helper()
	seen := s.faultFile() + ".seen"
	if err := os.WriteFile(seen, nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.reload()
	data, err := os.ReadFile(seen)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.Remove(seen); err != nil {
		s.t.Fatal(err)
	}
	times := map[string]int{}
	for name := range strings.Lines(string(data)) {
		name = strings.TrimSpace(name)
		times[name]++
		points = append(points, fmt.Sprintf("%s#%d", name, times[name]))
	}
	want := []string{"begun", "spawned", "store entry", "state write", "state next", "state removed", "state stored", "signalling", "signalled"}
	for _, step := range steps {
		want = append(want, "before "+step, "after "+step)
	}
	for _, name := range want {
		if times[name] == 0 {
			s.t.Fatalf("a reload does not pass %q: %q", name, points)
		}
	}
	return points
}

// tally counts the points at which something was to happen.
type tally struct {
	t                      *testing.T
	reached, timed, missed int
}

// note takes the result of during. How often the store is written depends on the timing: such a point may be missed,
// another may not.
func (y *tally) note(point string, reached bool) bool {
	y.t.Helper()
	timed := isStore(point)
	switch {
	case reached:
		y.reached++
	case timed:
		y.missed++
		y.t.Logf("%s was not reached again", point)
	default:
		y.t.Errorf("%s was not reached", point)
	}
	if timed {
		y.timed++
	}
	return reached
}

func isStore(point string) bool {
	return strings.HasPrefix(point, "store ") || strings.HasPrefix(point, "state ")
}

// check fails the test if more than a fifth of what may be missed was.
func (y *tally) check() {
	y.t.Helper()
	y.t.Logf("%d points reached, %d of %d that depend on the timing missed", y.reached, y.missed, y.timed)
	if y.missed*5 > y.timed {
		y.t.Errorf("%d of %d points that depend on the timing were missed", y.missed, y.timed)
	}
}

// arm has the daemon do something at the next point of that name.
func (s *service) arm(point, action string) {
	s.t.Helper()
	if err := os.WriteFile(s.faultFile(), []byte(point+": "+action+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// disarm reports whether the point was reached.
func (s *service) disarm() bool { return os.IsNotExist(os.Remove(s.faultFile())) }

// during arms a fault and reloads. It returns when the reload and its drain have ended or the daemon has, and reports
// whether the point was reached.
func (s *service) during(point, action string) bool {
	s.t.Helper()
	s.arm(point, action)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.try(true)
	}()
	select {
	case <-done:
	case <-time.After(limit):
		s.t.Fatalf("%s: the reload hangs", point)
	}
	return s.disarm()
}

var orders = []string{"start-first", "signal-first"}

// The supervisor is killed at every point of a handoff: the next one finds its way, and no client notices.
func TestKillSupervisorEverywhere(t *testing.T) {
	t.Parallel()
	for _, name := range append(orders, "bind") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := faulty(t, strings.ReplaceAll(name, "bind", "start-first"))
			if name == "bind" {
				s.configure(s.bindsItself() + quickDrain)
			}
			s.start()
			load := s.load()
			s.settled()
			tally := &tally{t: t}
			points := s.points()
			if name == "bind" { // what is stored, and how often, is much the same
				points = slices.DeleteFunc(points, func(p string) bool { return !strings.HasSuffix(p, "#1") })
			}
			for _, point := range points {
				if !tally.note(point, s.during(point, "kill")) {
					s.settled()
					continue
				}
				if exit := s.ended(); exit.Signal != syscall.SIGKILL {
					t.Fatalf("%s: the daemon ended with %+v", point, exit)
				}
				s.start()
				s.settled()
				s.reload()
				s.settled()
				if t.Failed() {
					t.Fatalf("at %s", point)
				}
			}
			tally.check()
			load.end()
			s.stop()
		})
	}
}

// killing is an action that ends processes and counts how often there were any (see killed).
func (s *service) killing(pids string) string {
	return fmt.Sprintf("exec p=\"%s\"; [ -n \"$p\" ] && kill -9 $p && echo >> %s.killed", pids, s.faultFile())
}

// killed is how often killing has killed.
func (s *service) killed() int {
	data, err := os.ReadFile(s.faultFile() + ".killed")
	if err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
	return len(data)
}

// processesOf is a shell expression: the processes of a generation.
func (s *service) processesOf(generation int) string {
	return fmt.Sprintf("$(grep -lzs '^SUPERVISOR_GENERATION=%s/[^/]*/%d$' /proc/[0-9]*/environ | cut -d/ -f3)", s.name, generation)
}

// The old worker is killed at every point of its replacement.
func TestKillOldWorkerEverywhere(t *testing.T) {
	t.Parallel()
	killWorker(t, func(_ *service, pid, _ int) string { return fmt.Sprint(pid) }, map[string][]string{
		"start-first":  {"before check", "begun", "after ready", "after switch", "before signal"},
		"signal-first": {"before check", "after store", "before divert", "before signal"},
	})
}

// The new worker is killed at every point of its start.
func TestKillNewWorkerEverywhere(t *testing.T) {
	t.Parallel()
	points := []string{"spawned", "before ready", "after ready", "before switch", "after switch"}
	killWorker(t, func(s *service, _, generation int) string { return s.processesOf(generation + 1) }, map[string][]string{
		"start-first":  append(points, "before divert", "before signal"),
		"signal-first": points,
	})
}

// killWorker kills processes at every point. There must have been some at the points in alive, by order.
func killWorker(t *testing.T, pids func(s *service, pid, generation int) string, alive map[string][]string) {
	for _, order := range orders {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			s := faulty(t, order)
			s.start()
			load := s.load()
			s.settled()
			seen := map[string]bool{}
			tally := &tally{t: t}
			for _, point := range s.points() {
				name, _, _ := strings.Cut(point, "#")
				if seen[name] {
					continue
				}
				seen[name] = true
				pid, generation := s.settled()
				before := s.killed()
				reached := tally.note(name, s.during(name, s.killing(pids(s, pid, generation))))
				s.settled()
				if reached && s.killed() == before && slices.Contains(alive[order], name) {
					t.Errorf("%s: nobody was killed", name)
				}
				s.reload()
				s.settled()
				if t.Failed() {
					t.Fatalf("at %s", name)
				}
			}
			tally.check()
			t.Logf("%d times a worker was killed", s.killed())
			load.endAfter(s.killed())
			s.stop()
		})
	}
}

// Both generations die at once at the worst moment.
func TestKillBothWorkers(t *testing.T) {
	t.Parallel()
	s := faulty(t, "start-first")
	s.start()
	load := s.load()
	points := []string{"after ready", "after switch", "before divert", "before signal"}
	for _, point := range points {
		pid, generation := s.settled()
		if !s.during(point, s.killing(fmt.Sprint(pid, " ", s.processesOf(generation+1)))) {
			t.Errorf("%s was not reached", point)
		}
		s.eventually(func() string {
			if st := s.status(); st.State != "serving" {
				return "the service is " + st.State
			}
			return ""
		})
		s.settled()
		s.reload()
	}
	if s.killed() != len(points) {
		t.Errorf("both were killed %d times of %d", s.killed(), len(points))
	}
	load.endAfter(2 * len(points))
	s.stop()
}

// More is asked of the supervisor while a step takes its time.
func TestSlowPoints(t *testing.T) {
	t.Parallel()
	s := faulty(t, "start-first")
	s.start()
	load := s.load()
	s.settled()
	for _, point := range []string{"begun", "spawned", "after switch", "state removed"} {
		s.arm(point, "delay 200ms")
		s.signal(syscall.SIGHUP)
		s.reload()
		s.settled()
		if !s.disarm() {
			t.Errorf("%s was not reached", point)
		}
	}
	load.end()
	s.stop()
}

// storedSockets are the entries of sockets in the store, with their identities.
func (s *service) storedSockets() map[string]uint64 {
	s.t.Helper()
	s.barrier()
	stored := map[string]uint64{}
	for _, e := range s.manager.Entries() {
		if !strings.HasPrefix(e.Name, "supervisor.socket.") && !strings.HasPrefix(e.Name, "supervisor.alternate.") {
			continue
		}
		cookie, err := sys.Cookie(e.FD.Num())
		if err != nil {
			s.t.Fatal(err)
		}
		stored[e.Name] = cookie
	}
	return stored
}

// whileAt reloads, and runs f while the daemon stands at a point. It returns when the reload and its drain have ended, and
// reports whether the point was reached.
func (s *service) whileAt(point string, f func()) bool {
	s.t.Helper()
	return s.whileThere(point, func() <-chan struct{} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.try(true)
		}()
		return done
	}, f)
}

// startedAt starts the daemon, and runs f while it stands at a point that it must come to.
func (s *service) startedAt(point string, f func()) {
	s.t.Helper()
	ctx := s.ctx()
	if !s.whileThere(point, func() <-chan struct{} {
		s.launch()
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.manager.WaitReady(ctx)
		}()
		return done
	}, f) {
		s.t.Fatalf("a start does not come to %q", point)
	}
}

// whileThere has begin begin something, and runs f while the daemon stands at a point. It returns when the channel is
// closed that begin returned, and reports whether the point was reached.
func (s *service) whileThere(point string, begin func() <-chan struct{}, f func()) bool {
	s.t.Helper()
	there, leave := s.faultFile()+".there", s.faultFile()+".leave"
	s.arm(point, fmt.Sprintf("exec : > %s; until [ -e %s -o ! -d %s ]; do sleep 0.01; done; rm %[1]s %[2]s", there, leave, s.dir))
	done := begin()
	s.eventually(func() string {
		select {
		case <-done:
			return ""
		default:
		}
		if _, err := os.Lstat(there); err != nil {
			return fmt.Sprintf("%s: the daemon hangs", point)
		}
		return ""
	})
	reached := s.disarm()
	if reached {
		f()
		if err := os.WriteFile(leave, nil, 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	select {
	case <-done:
	case <-time.After(limit):
		s.t.Fatalf("%s: the daemon hangs after it", point)
	}
	return reached
}

// From some point of a handoff on the store takes nothing more, and says nothing, as systemd's does: one generation serves
// in the end, no socket is lost, and with room the next reload puts everything right.
func TestStoreFullAtEveryPoint(t *testing.T) {
	t.Parallel()
	for _, order := range orders {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			s := faulty(t, order)
			s.start()
			load := s.load()
			s.settled()
			sockets := s.storedSockets()
			if len(sockets) != 2 {
				t.Fatalf("stored: %v", sockets)
			}
			held := s.fds().Sockets[0].Cookie
			tally := &tally{t: t}
			for _, point := range s.points() {
				if name, _, _ := strings.Cut(point, "#"); !isStore(name) && name != "before store" && name != "after store" {
					continue
				}
				_, n := s.settled()
				tally.note(point, s.whileAt(point, func() {
					s.barrier()
					s.manager.SetMax(len(s.manager.Names()))
				}))
				s.eventually(func() string {
					serving := 0
					for _, g := range s.status().Generations {
						if g.State == "serving" && (g.N == n || g.N == n+1) { // the store may be seen to be full
							serving++
						} else if g.State != "gone" {
							return fmt.Sprintf("generation %d is %s", g.N, g.State)
						}
					}
					if serving != 1 {
						return fmt.Sprintf("%d generations serve", serving)
					}
					return ""
				})
				if diff := cmp.Diff(sockets, s.storedSockets()); diff != "" {
					t.Errorf("sockets in the full store: %s", diff)
				}
				s.manager.SetMax(fdstoreMax)
				s.reload()
				s.settled()
				if diff := cmp.Diff(sockets, s.storedSockets()); diff != "" || s.fds().Sockets[0].Cookie != held {
					t.Errorf("sockets: %s", diff)
				}
				s.kill()
				s.start()
				if t.Failed() {
					t.Fatalf("at %s", point)
				}
			}
			tally.check()
			load.end()
			s.stop()
		})
	}
}
