//go:build vm

package vm

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/test/load"
)

// A storm of everything that may happen, from a seed that is printed. SUPERVISOR_TEST_STORM is its length, by default
// a minute, and SUPERVISOR_TEST_SEED repeats one.
var _ = scenario("z-storm", func(t *testing.T, m *Machine) {
	s := newStorm(t, m)
	t.Logf("storm of %s, seed %d", s.length, s.seed)
	s.start()
	if err := s.tryReload(); err != nil {
		t.Fatal(err)
	}
	base := s.atRest(-1)
	s.storesOnly(base.serving().N)
	before := s.usage()
	o := outcome{Case: "h storm", Notes: []string{fmt.Sprintf("%s, seed %d", s.length, s.seed)}}
	run := s.Load(load.Options{Target: tcp(s.port), Pause: 2 * time.Millisecond, Late: 50 * time.Millisecond, Timeout: 15 * time.Second,
		Clients: map[load.Class]int{load.New: 2, load.Late: 2, load.Keep: stormClients - 4}})
	s.progress(run, 50)
	s.accounted.cursor = s.Cursor()
	for end := time.Now().Add(s.length); time.Now().Before(end) && !t.Failed(); {
		what := s.next(&o)
		time.Sleep(time.Duration(s.random.IntN(200)) * time.Millisecond)
		s.account(what, run.Snapshot())
	}
	s.calm()
	v, problem := s.quietedAs(base, 60*time.Second)
	if problem != "" {
		t.Errorf("seed %d: 60 s after the storm: %s\n%+v", s.seed, problem, v.status)
	}
	if err := s.tryReload(); err != nil {
		t.Errorf("seed %d: the reload after the storm: %v", s.seed, err)
	}
	s.progress(run, 50)
	result := run.Stop()
	s.account("the reload after the storm", result)
	o.count("workers killed")
	o.Counts["workers killed"] = s.kills
	v = s.atRest(base.stored)
	s.storesOnly(v.serving().N)
	after := s.usage()
	o.Notes = append(o.Notes, fmt.Sprintf("resident %d KiB, before %d KiB", after.rss, before.rss))
	s.record(o, result)
	if after.stored != before.stored || after.processes != before.processes || after.descriptors > before.descriptors+2 || after.rss > before.rss+16<<10 {
		t.Errorf("seed %d: after the storm %+v, before %+v", s.seed, after, before)
	}
	if n := len(s.ListeningInodes(s.port + 1)); n > 0 {
		t.Errorf("seed %d: %d listeners left on the port that was removed", s.seed, n)
	}
})

// stormClients is how many requests are in hand at once.
const stormClients = 5

type storm struct {
	*faulty
	length     time.Duration
	seed       uint64
	random     *rand.Rand
	kills      int // of workers
	events     []event
	background sync.WaitGroup
	accounted  accounts
}

// accounts are what was counted before an event.
type accounts struct {
	kills       int
	failed, cut int64
	cursor      string // of the journal
	// late is how many requests more the workers that the last event killed may have taken with them: what a client has in
	// hand is counted when it looks, perhaps after the event.
	late int64
	// trail are the last events: a request that times out began in one of them.
	trail []string
}

// account demands that of the requests since the last event none failed but those that a worker had accepted which the
// event killed, or a newcomer that was given up because of it: at most one of each client.
func (s *storm) account(what string, now load.Result) {
	s.t.Helper()
	a := &s.accounted
	a.trail = append(a.trail[max(0, len(a.trail)-4):], what)
	failed, lost := now.Failures()-a.failed, cut(now)-a.cut
	cursor := s.Cursor()
	givenUp := strings.Count(s.JournalAfter(s.unit, a.cursor), "killed: the handoff failed")
	may := int64(stormClients * (s.kills - a.kills + givenUp))
	if failed > lost || lost > may+a.late {
		s.t.Errorf("seed %d: %q lost requests: %d failed, %d of them in the middle, where %d may; the last events were %q:\n%s",
			s.seed, what, failed, lost, may+a.late, a.trail, now)
	}
	a.kills, a.failed, a.cut, a.late, a.cursor = s.kills, now.Failures(), cut(now), max(0, may-lost), cursor
}

// event is something that happens; one that is gentle may come while another one is under way.
type event struct {
	name   string
	gentle bool
	do     func()
}

func newStorm(t *testing.T, m *Machine) *storm {
	s := &storm{length: time.Minute, seed: rand.Uint64()}
	if text := os.Getenv("SUPERVISOR_TEST_STORM"); text != "" {
		var err error
		if s.length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("SUPERVISOR_TEST_SEED"); text != "" {
		var err error
		if s.seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	s.random = rand.New(rand.NewPCG(s.seed, 0))
	s.faulty = m.faulty("storm", quickWorker("storm", "start-first", 7200), 7200)
	for _, version := range []string{"one", "two"} {
		if _, err := faultBuild(version); err != nil {
			t.Fatal(err)
		}
	}
	good := s.ReadFile(s.config())
	reload := func() { s.TrySystemctl("reload", s.unit) }
	configured := func(text string) func() {
		return func() { s.WriteFile(s.config(), text); reload(); s.WriteFile(s.config(), good); reload() }
	}
	s.events = []event{
		{"reload", false, reload},
		{"reload until drained", false, func() { s.supervisor("reload", s.name, "--drained") }},
		{"two reloads", false, func() { s.TrySystemctl("--no-block", "reload", s.unit); s.supervisor("reload", s.name) }},
		{"slow drains", false, func() { s.arguments("-drain-delay=700ms"); reload(); s.arguments(); reload() }},
		{"bad reload", false, func() { s.arguments("-exit=3"); reload(); s.arguments() }},
		{"never ready", false, func() {
			s.arguments("-hang")
			s.WriteFile(s.config(), replace(t, good, `"5s"`, `"200ms"`))
			reload()
			s.calm()
		}},
		{"bad configuration", false, configured("nonsense = [")},
		{"socket added and removed", false, configured(good + socketTable("more", fmt.Sprintf("127.0.0.1:%d", s.port+1)))},
		{"order changed", false, configured(replace(t, good, "start-first", "signal-first"))},
		{"killed at a point", false, func() { s.atPoint("kill") }},
		{"delayed at a point", false, func() { s.atPoint("delay 300ms") }},
		{"killed while it leaves", false, func() {
			s.WriteFile(s.file(), "leaving: kill\n")
			s.TrySystemctl("restart", s.unit)
			s.Remove(s.file())
		}},
		{"kill worker", true, func() {
			if pid := s.view().serving().PID; pid != 0 {
				s.kills++
				s.TryKill(pid, syscall.SIGKILL)
			}
		}},
		{"kill supervisor", true, func() {
			if pid := s.MainPID(s.unit); pid != 0 {
				s.TryKill(pid, syscall.SIGKILL)
			}
		}},
		{"kill both", true, func() {
			if v := s.view(); v.main != 0 && v.serving().PID != 0 {
				s.kills++
				s.Try("kill", "-9", strconv.Itoa(v.main), strconv.Itoa(v.serving().PID))
			}
		}},
		{"reexec", true, func() { s.install([]string{"one", "two"}[s.random.IntN(2)]); s.supervisor("reexec", s.name) }},
		{"restart", true, func() { s.TrySystemctl("restart", s.unit) }},
		{"daemon-reload", true, func() { s.TrySystemctl("daemon-reload") }},
		{"daemon-reexec", true, func() { s.TrySystemctl("daemon-reexec") }},
	}
	return s
}

// next lets one event happen, or a gentle one in the middle of another, and returns what it was.
func (s *storm) next(o *outcome) string {
	e := s.events[s.random.IntN(len(s.events))]
	o.count(e.name)
	if e.gentle || s.random.IntN(3) > 0 {
		e.do()
		return e.name
	}
	gentle := slices.DeleteFunc(slices.Clone(s.events), func(e event) bool { return !e.gentle })
	other := gentle[s.random.IntN(len(gentle))]
	o.count(other.name)
	wait := time.Duration(s.random.IntN(150)) * time.Millisecond
	s.background.Go(e.do)
	time.Sleep(wait)
	other.do()
	s.background.Wait()
	return e.name + " + " + other.name
}

// atPoint reloads with an action at a random point.
func (s *storm) atPoint(action string) {
	points := []string{"before check", "before fetch", "before store", "before spawn", "begun", "spawned", "before ready", "before reconcile", "before switch",
		"after switch", "before divert", "before idle", "before signal", "after signal", "store entry", "store remove", "state write", "state next", "state removed", "state stored"}
	s.WriteFile(s.file(), fmt.Sprintf("%s#%d: %s\n", points[s.random.IntN(len(points))], 1+s.random.IntN(3), action))
	s.supervisor("reload", s.name)
	s.Remove(s.file())
}

// calm takes back what an event that was interrupted may have left.
func (s *storm) calm() {
	s.Remove(s.file())
	s.arguments()
	s.WriteFile(s.config(), quickWorker(s.name, "start-first", s.port))
}

// A worker attacks: floods, lies, malformed and huge datagrams, 10,000 descriptors, names of the supervisor's own
// entries, the socket of systemd; and dies in the middle of it. Nothing is lost and memory stays bounded.
var _ = scenario("s-i-hostile-worker", func(t *testing.T, m *Machine) {
	f := m.faulty("svi", quickWorker("svi", "start-first", 7060), 7060)
	f.start()
	base := f.atRest(-1)
	before := f.usage()
	f.loaded(outcome{Case: "i hostile worker"}, func(o *outcome) {
		f.arguments("-hostile")
		for range 2 {
			cursor := f.Cursor()
			if err := f.tryReload(); err != nil {
				t.Errorf("reload: %v", err)
			}
			f.Eventually(30*time.Second, func() string {
				if !strings.Contains(f.JournalAfter(f.unit, cursor), "attack is over") {
					return "the attack is not over"
				}
				return ""
			})
			if v := f.view(); v.main != base.main || v.err != nil || v.status.State != "serving" {
				t.Errorf("after the attack: supervisor %d, before %d, %s %v", v.main, base.main, v.status.State, v.err)
			}
			o.count("attacks")
		}
		after := f.usage()
		o.Notes = append(o.Notes, fmt.Sprintf("resident %d KiB, before %d KiB; %d stored, before %d; %d descriptors, before %d",
			after.rss, before.rss, after.stored, before.stored, after.descriptors, before.descriptors))
		const kept = 64 // what workers may have stored
		if after.rss > before.rss+16<<10 || after.stored > before.stored+kept || after.descriptors > before.descriptors+kept+8 {
			t.Errorf("after the attack %+v, before %+v", after, before)
		}
		// Somebody else sends, and knocks at the control socket.
		for _, path := range []string{"/run/supervisor/svi/notify/" + strconv.Itoa(f.view().serving().N), "/run/systemd/notify"} {
			if r := f.Try("sh", "-ec", "for m in MAINPID=1 READY=1 STOPPING=1 FDSTOREREMOVE=1; do printf \"$m\\nFDNAME=supervisor.state\\n\" | socat - UNIX-SENDTO:"+path+"; done"); r.Code != 0 {
				t.Errorf("sending to %s: exit %d: %s", path, r.Code, r.Stderr)
			}
		}
		if v, now := f.view(), f.usage(); v.main != base.main || v.status.State != "serving" || now.stored != after.stored {
			t.Errorf("after what somebody else has sent: supervisor %d %s, %d stored; before %d, %d stored", v.main, v.status.State, now.stored, base.main, after.stored)
		}
		for _, command := range []string{"reload", "status", "reexec", "fds"} {
			if r := f.Try("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "supervisor", command, "svi"); r.Code == 0 {
				t.Errorf("another user may %s:\n%s", command, r.Stdout)
			}
		}
	})
	// It dies while it sends; what it had accepted dies with it, and nothing else.
	o := outcome{Case: "i hostile worker dies while sending"}
	result := f.whileLoaded(load.Options{Target: tcp(f.port), Clients: allKinds, Pause: 2 * time.Millisecond, Late: 50 * time.Millisecond}, func() {
		for range 3 {
			old := f.view().serving().PID
			f.Kill(old, syscall.SIGKILL)
			o.count("kills")
			f.Eventually(10*time.Second, func() string {
				if pid := f.view().serving().PID; pid == 0 || pid == old {
					return "no new worker"
				}
				return ""
			})
		}
		f.arguments()
		if err := f.tryReload(); err != nil {
			t.Errorf("reload: %v", err)
		}
		v := f.atRest(-1)
		f.Kill(v.main, syscall.SIGKILL)
		if now := f.atRest(v.stored); now.serving().PID != v.serving().PID {
			t.Errorf("worker %d after SIGKILL of the supervisor, before %d", now.serving().PID, v.serving().PID)
		}
	})
	f.record(o, result)
	if lost := cut(result); result.Failures() > lost || lost > 9 {
		t.Errorf("%s:\n%s", o.Case, result)
	}
})
