//go:build vm

package vm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/test/load"
)

// faultBuild builds the supervisor with named fault points and the given version, once per test process.
func faultBuild(version string) (string, error) {
	if _, err := binaries(); err != nil {
		return "", err
	}
	faultMu.Lock()
	defer faultMu.Unlock()
	path := filepath.Join(binariesDir, "supervisor-fault-"+version)
	if exists(path) {
		return path, nil
	}
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "fault", "-ldflags", "-s -w -X main.version="+version, "-o", path, "./cmd/supervisor")
	cmd.Dir = filepath.Join(here(), "..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build with fault points: %w\n%s", err, out)
	}
	return path, nil
}

var faultMu sync.Mutex

// faulty is a service whose supervisor has fault points. It runs a binary of its own, which a test may replace.
type faulty struct {
	*service
	port   int
	binary string
}

// quickWorker is a goWorker whose handoffs take as little time as they can.
func quickWorker(name, order string, port int) string {
	return fmt.Sprintf(`
[worker]
command = ["/usr/bin/worker", "-generation", "${generation}", "-args", "/etc/supervisor/%[1]s.args"]

[ready]
when    = ["listening", "notify"]
timeout = "5s"

[drain]
settle   = "20ms"
timeout  = "3s"
escalate = ["SIGTERM", "1s", "SIGKILL"]

[handoff]
order = %[2]q

[[socket]]
name   = "http"
listen = "127.0.0.1:%[3]d"
`, name, order, port)
}

func (m *Machine) faulty(name, toml string, port int) *faulty {
	m.t.Helper()
	path, err := faultBuild("one")
	if err != nil {
		m.t.Fatal(err)
	}
	f := &faulty{port: port, binary: "/usr/local/lib/supervisor-" + name}
	m.InstallBinary(path, f.binary)
	f.service = m.service(name, toml, fmt.Sprintf(`[Service]
ExecStart=
ExecStart=%[1]s run %[2]s
Environment=SUPERVISOR_FAULT_FILE=/run/fault-%[2]s
RestartSec=10ms
`, f.binary, name))
	m.t.Cleanup(func() { m.Remove(f.binary, f.file(), f.file()+".seen", f.killed()) })
	f.arguments()
	return f
}

func (f *faulty) file() string { return "/run/fault-" + f.name }

// killed is the file to which an action adds a line for each process that it has killed.
func (f *faulty) killed() string { return f.file() + ".killed" }

// with is the same service in a subtest.
func (f *faulty) with(t *testing.T) *faulty {
	s := *f.service
	s.Machine = f.With(t)
	return &faulty{service: &s, port: f.port, binary: f.binary}
}

// points lists what a handoff and the drain after it pass, in order: the points of the steps once, those of the FD
// store as often as they are passed ("state write#3").
func (f *faulty) points() (list []string) {
	f.t.Helper()
	f.atRest(-1)
	f.WriteFile(f.file()+".seen", "")
	if err := f.tryReload(); err != nil {
		f.t.Fatal(err)
	}
	if _, problem := f.quieted(-1, 10*time.Second); problem != "" {
		f.t.Fatal(problem)
	}
	times := map[string]int{}
	for line := range strings.Lines(f.ReadFile(f.file() + ".seen")) {
		name := strings.TrimSpace(line)
		if len(list) == 0 && name != "before check" {
			continue // the state was still being written
		}
		times[name]++
		list = append(list, fmt.Sprintf("%s#%d", name, times[name]))
	}
	f.Remove(f.file() + ".seen")
	return list
}

// ofStore tells the points of the FD store from those of the steps.
func ofStore(point string) bool {
	return strings.HasPrefix(point, "state ") || strings.HasPrefix(point, "store ")
}

// share takes every point of the steps on one suite, and this suite's part of the rest, or every point where there is time.
func (m *Machine) share(points []string) (list []string) {
	part := m.part(points)
	for _, p := range points {
		if slices.Contains(part, p) || m.Suite == "trixie" && !ofStore(p) {
			list = append(list, p)
		}
	}
	return list
}

// part takes every third point, others on each suite: all three together take all, or two where the newest cannot run.
func (m *Machine) part(points []string) (list []string) {
	turn := slices.Index(turns, m.Suite)
	for i, p := range points {
		if turn < 0 || i%len(turns) == turn || thorough() {
			list = append(list, p)
		}
	}
	return list
}

// thorough says that there is time for everything (make chaos).
func thorough() bool { return os.Getenv("SUPERVISOR_TEST_LONG") != "" }

// clientsAtPoints are so many that a worker that accepts has some request in hand, nearly always: one of each at most.
const clientsAtPoints = 6

// atEvery arms the action at each of the points in turn, reloads, and demands that the service comes to rest as it
// was: one supervisor, one generation, the same FD store, and the next reload works. mayCut is how many requests in
// the middle the action may end at a point: what a killed worker had accepted. At the points in mustKill there is
// somebody to kill. How often the FD store is written
// depends on timing, so one in five of its points may be missed, and no other.
func (f *faulty) atEvery(what string, points []string, action string, mustKill []string, mayCut func(point string) int64) {
	base, problem := f.quieted(-1, 10*time.Second)
	if problem != "" {
		f.t.Fatal(problem)
	}
	run := f.Load(load.Options{Target: tcp(f.port), Pause: 2 * time.Millisecond, Late: 50 * time.Millisecond,
		Clients: map[load.Class]int{load.New: 1, load.Late: clientsAtPoints - 2, load.Keep: 1}})
	o := outcome{Case: what}
	before := run.Snapshot()
	ofStores, missed, kills := 0, 0, 0
	for _, point := range points {
		f.progress(run, 10)
		patience := 10 * time.Second
		if ofStore(point) {
			ofStores++
			patience = time.Second
		}
		old := f.view().serving()
		f.WriteFile(f.file(), point+": "+strings.NewReplacer("OLD", fmt.Sprint(old.PID), "NEW", fmt.Sprintf("%s/[^/]*/%d", f.name, old.N+1), "KILLED", f.killed()).Replace(action)+"\n")
		f.WriteFile(f.killed(), "")
		start := time.Now()
		err := f.tryReload()
		if !f.Eventual(patience, func() bool { return !f.Exists(f.file()) }) {
			f.Remove(f.file())
			o.count("not reached")
			if missed++; !ofStore(point) {
				f.t.Errorf("%s: the reload (%v) did not come to %s", what, err, point)
			}
		}
		v, problem := f.quietedAs(base, 15*time.Second)
		killed := strings.Count(f.ReadFile(f.killed()), "\n")
		if name, _, _ := strings.Cut(point, "#"); killed == 0 && slices.Contains(mustKill, name) {
			f.t.Errorf("%s at %s: nobody was killed", what, point)
		}
		kills += killed
		o.time("until at rest", time.Since(start))
		if problem != "" {
			f.t.Errorf("%s at %s (reload: %v): after 15 s still: %s\n%+v", what, point, err, problem, v.status)
			if _, problem = f.quieted(-1, 30*time.Second); problem != "" {
				f.t.Fatalf("%s at %s: and then: %s", what, point, problem)
			}
		}
		if err := f.tryReload(); err != nil {
			f.t.Errorf("%s at %s: the next reload: %v", what, point, err)
		}
		if v, problem := f.quietedAs(base, 15*time.Second); problem != "" {
			f.t.Errorf("%s at %s: after the next reload: %s\n%+v", what, point, problem, v.status)
		}
		o.count("points")
		now := run.Snapshot()
		lost, ended := now.Failures()-before.Failures(), cut(now)-cut(before)
		if lost > ended || ended > mayCut(point) {
			f.t.Errorf("%s at %s (reload: %v): %d requests failed, %d of them in the middle, where %d may:\n%s", what, point, err, lost, ended, mayCut(point), now)
		}
		before = now
	}
	if strings.Contains(action, "KILLED") && kills == 0 {
		f.t.Errorf("%s: it was done at none of %d points", what, len(points))
	}
	if missed > max(1, ofStores/5) {
		f.t.Errorf("%s: %d of %d points of the FD store were not reached", what, missed, ofStores)
	}
	f.progress(run, 20)
	if len(mustKill) > 0 {
		o.count("workers killed")
		o.Counts["workers killed"] = kills
		f.t.Logf("%s: %d workers killed at %d points", what, kills, len(points))
	}
	f.record(o, run.Stop())
}

// Eventual is Eventually for what may not come.
func (m *Machine) Eventual(limit time.Duration, check func() bool) bool {
	for end := time.Now().Add(limit); !check(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// The ways to kill somebody at a point. Workers are found by their marker: nobody knows the new one's pid yet.
const (
	killSupervisor = "kill"
	killOld        = "exec kill -9 OLD && echo >> KILLED"
	killNew        = "exec for p in $(grep -lzsxE SUPERVISOR_GENERATION=NEW /proc/[0-9]*/environ); do p=${p#/proc/}; kill -9 ${p%%/*} && echo >> KILLED; done"
	// In the background, or it would be over when the supervisor goes on.
	reloadManager = "exec { systemctl daemon-reload && echo >> KILLED; } &"
	reexecManager = "exec { systemctl daemon-reexec && echo >> KILLED; } &"
)

// Somebody is killed, or systemd reloads itself, at every point of a handoff, in both orders at the same time.
var _ = scenario("s-faults", func(t *testing.T, m *Machine) {
	for i, order := range []string{"start-first", "signal-first"} {
		name, port := []string{"fsf", "fgf"}[i], 7100+i
		// It ends with the scenario, when no other lane lets systemd execute itself.
		f := m.faulty(name, quickWorker(name, order, port), port)
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			f.with(t).faults(t, order)
		})
	}
})

func (f *faulty) faults(t *testing.T, order string) {
	f.start()
	points := f.points()
	t.Logf("%s passes %q", order, points)
	var steps []string
	for _, p := range points {
		if !ofStore(p) {
			steps = append(steps, p)
		}
	}
	nothing := func(string) int64 { return 0 }
	accepted := func(string) int64 { return clientsAtPoints }
	// A newcomer beside the old worker gets no connection before the switch.
	acceptedByNew := func(point string) int64 {
		if order == "start-first" && slices.Index(points, point) <= slices.Index(points, "before switch#1") {
			return 0
		}
		return clientsAtPoints
	}
	oldLives := []string{"before check", "after store", "before divert", "before signal"}
	newLives := []string{"spawned", "before ready", "after ready", "before switch", "after switch"}
	if order == "start-first" {
		oldLives = []string{"before check", "begun", "after ready", "after switch", "before signal"}
		newLives = append(newLives, "before divert", "before signal")
	}
	for _, c := range []struct {
		what, action string
		points       []string
		mustKill     []string
		mayCut       func(string) int64
	}{
		{"b kill supervisor", killSupervisor, f.share(points), nil, nothing},
		{"c kill old worker", killOld, f.share(steps), oldLives, accepted},
		{"c kill new worker", killNew, f.share(steps), newLives, acceptedByNew},
		{"f daemon-reload", reloadManager, f.part(steps), nil, nothing},
		{"f daemon-reexec", reexecManager, f.part(steps), nil, nothing},
	} {
		t.Run(c.what, func(t *testing.T) { f.with(t).atEvery(c.what+", "+order, c.points, c.action, c.mustKill, c.mayCut) })
	}
}

// The supervisor is killed at every point of a reload that adds a socket, under load on one that cannot be steered.
// The new port is served or it refuses, but nobody waits there for ever; and when it is taken out it is gone.
var _ = scenario("s-b-new-socket", func(t *testing.T, m *Machine) {
	const port = 7111
	plain := replace(t, quickWorker("fns", "start-first", port), fmt.Sprintf("127.0.0.1:%d", port), "unix:/run/fns.sock")
	more := plain + socketTable("more", fmt.Sprintf("127.0.0.1:%d", port))
	f := m.faulty("fns", plain, port)
	f.start()
	points := m.share(f.points())
	base, problem := f.quieted(-1, 10*time.Second)
	if problem != "" {
		t.Fatal(problem)
	}
	o := outcome{Case: "b kill supervisor, unix socket, reload adds a socket"}
	run := f.Load(load.Options{Target: load.Target{Network: "unix", Address: "/run/fns.sock"}, Clients: allKinds, Pause: 2 * time.Millisecond, Late: 50 * time.Millisecond})
	before := run.Snapshot()
	served, missed := 0, 0
	for _, point := range points {
		o.count("points")
		main := f.MainPID(f.unit)
		f.progress(run, 10)
		f.WriteFile(f.config(), more)
		f.WriteFile(f.file(), point+": kill\n")
		_ = f.tryReload()
		v, problem := f.quieted(-1, 15*time.Second)
		if problem != "" {
			t.Fatalf("at %s: %s\n%+v", point, problem, v.status)
		}
		if reached := !f.Exists(f.file()); reached && v.main == main {
			t.Errorf("at %s: the supervisor was not killed", point)
		} else if !reached {
			f.Remove(f.file())
			if missed++; !ofStore(point) {
				t.Errorf("the reload did not come to %s", point)
			}
		}
		if got := f.Get(fmt.Sprintf("127.0.0.1:%d", port), "/"); strings.Contains(got, "pid=") {
			served++
		} else if !strings.Contains(got, "refused") {
			t.Errorf("at %s: the new port answers %q\n%+v", point, got, v.status)
		}
		f.WriteFile(f.config(), plain)
		if err := f.tryReload(); err != nil {
			t.Errorf("at %s: the next reload: %v", point, err)
		}
		if v, problem := f.quietedAs(base, 15*time.Second); problem != "" {
			t.Errorf("at %s: after the next reload: %s\n%+v", point, problem, v.status)
		}
		if got := f.Get(fmt.Sprintf("127.0.0.1:%d", port), "/"); !strings.Contains(got, "refused") {
			t.Errorf("at %s: the port that is not configured any more answers %q", point, got)
		}
		now := run.Snapshot()
		if now.Failures() > before.Failures() {
			t.Errorf("at %s: requests failed:\n%s", point, now)
		}
		before = now
	}
	if served == 0 || missed > max(1, len(points)/5) {
		t.Errorf("of %d points %d were not reached; the new port was served after %d", len(points), missed, served)
	}
	f.record(o, run.Stop())
})
