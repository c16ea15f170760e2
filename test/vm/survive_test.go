//go:build vm

package vm

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/test/load"
)

var allKinds = map[load.Class]int{load.New: 1, load.Late: 1, load.Keep: 1}

// loaded runs do under load on the service and records what the client counted: nothing may fail.
func (f *faulty) loaded(o outcome, do func(*outcome)) load.Result {
	f.t.Helper()
	result := f.whileLoaded(load.Options{Target: tcp(f.port), Clients: allKinds, Pause: 2 * time.Millisecond, Late: 50 * time.Millisecond}, func() { do(&o) })
	f.record(o, result)
	if result.Failures() > 0 {
		f.t.Errorf("%s: %d of %d requests failed:\n%s", o.Case, result.Failures(), result.Requests(), result)
	}
	return result
}

// atRest is quieted for a service that must come to rest.
func (f *faulty) atRest(stored int) view {
	f.t.Helper()
	v, problem := f.quieted(stored, 20*time.Second)
	if problem != "" {
		f.t.Fatalf("after 20 s still: %s\n%+v", problem, v.status)
	}
	return v
}

// story is what status tells and an adoption must not change.
func story(s control.Status) (all []string) {
	for _, g := range s.Generations {
		all = append(all, fmt.Sprintf("generation %d %s pid %d slot %d since %s: %s %s", g.N, g.State, g.PID, g.Slot, g.Since.Format(time.RFC3339Nano), g.Status, g.Exit))
	}
	for _, h := range s.Handoffs {
		all = append(all, fmt.Sprintf("handoff %d %s %d to %d, %d steps, ok %v", h.ID, h.Kind, h.From, h.To, len(h.Steps), h.OK))
	}
	return append(all, fmt.Sprintf("since %s, %d sockets, %s", s.Since.Format(time.RFC3339Nano), s.Sockets, s.Config.Sum))
}

// The supervisor is killed while idle, ten times in a row: the worker keeps its pid, status tells the same story.
var _ = scenario("s-a-supervisor-killed", func(t *testing.T, m *Machine) {
	f := m.faulty("sva", quickWorker("sva", "start-first", 7000), 7000)
	f.dropin(fmt.Sprintf("[Service]\nExecStart=\nExecStart=%s run sva\n", f.binary))
	f.start()
	if err := f.tryReload(); err != nil {
		t.Fatal(err)
	}
	base := f.atRest(-1)
	names := f.storedNames()
	f.storesOnly(base.serving().N)
	f.loaded(outcome{Case: "a supervisor killed when idle, 10 times"}, func(o *outcome) {
		for i := range 10 {
			pid := f.hostPID(f.MainPID(f.unit))
			before, err := f.ask()
			if err != nil {
				t.Fatal(err)
			}
			start := sys.MonotonicNow()
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			f.Eventual(5*time.Second, func() bool { return !exists(fmt.Sprintf("/proc/%d", pid)) })
			v := f.atRest(base.stored)
			o.time("SIGKILL to READY=1", f.monotonic("ActiveEnterTimestampMonotonic")-start)
			o.time("exec to READY=1", f.monotonic("ActiveEnterTimestampMonotonic")-f.monotonic("ExecMainStartTimestampMonotonic"))
			o.count("kills")
			if got, want := story(v.status), story(before); !reflect.DeepEqual(got, want) {
				t.Errorf("kill %d: status says\n%s\nbefore\n%s", i, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if now := f.storedNames(); now != names {
				t.Errorf("kill %d: FD store holds %s, before %s", i, now, names)
			}
			f.storesOnly(v.serving().N)
			if i%3 == 2 { // a reload now and then, so that what is adopted differs
				if err := f.tryReload(); err != nil {
					t.Errorf("the reload after kill %d: %v", i, err)
				}
				f.atRest(base.stored)
				names = f.storedNames()
			}
		}
	})
})

func (s *service) monotonic(property string) time.Duration {
	s.t.Helper()
	var us int64
	if _, err := fmt.Sscan(s.Property(s.unit, property), &us); err != nil {
		s.t.Fatal(err)
	}
	return time.Duration(us) * time.Microsecond
}

// storedNames is what systemd shows of the FD store, where it does.
func (s *service) storedNames() string {
	s.t.Helper()
	if !s.FDStoreShown() {
		return ""
	}
	var b strings.Builder
	for _, e := range s.FDStore(s.unit) {
		if !strings.HasPrefix(e.Name, "supervisor.state") { // a new one each time
			fmt.Fprintf(&b, "%s=%d ", e.Name, e.Inode)
		}
	}
	return b.String()
}

// storesOnly checks the names of all that the FD store holds, where systemd shows it, while generation n serves on one
// steered socket.
func (f *faulty) storesOnly(n int) {
	f.t.Helper()
	if !f.FDStoreShown() {
		return
	}
	var names []string
	for _, e := range f.FDStore(f.unit) {
		names = append(names, e.Name)
	}
	want := []string{"supervisor.alternate.http", fmt.Sprintf("supervisor.notify.%d", n), "supervisor.socket.http", "supervisor.state", fmt.Sprintf("supervisor.worker.%d", n)}
	if !slices.Equal(names, want) {
		f.t.Errorf("FD store holds %q, want %q", names, want)
	}
}

// systemctl restart: nothing is refused, the worker is new; with reloads, bad configurations and dead workers around it.
var _ = scenario("s-e-restart", func(t *testing.T, m *Machine) {
	for i, order := range []string{"start-first", "signal-first"} {
		f := m.faulty(fmt.Sprintf("sve%d", i), quickWorker(fmt.Sprintf("sve%d", i), order, 7010+i), 7010+i)
		f.start()
		base := f.atRest(-1)
		toml := f.ReadFile(f.config())
		f.loaded(outcome{Case: "e restart, " + order}, func(o *outcome) {
			for i := range 4 {
				old := f.view().serving().PID
				if i == 3 { // killed when all is stored
					f.WriteFile(f.file(), "leaving: kill\n")
				}
				f.Systemctl("restart", f.unit)
				if f.Exists(f.file()) {
					t.Errorf("%s: the supervisor was not killed while it left", order)
				}
				if v := f.atRest(base.stored); v.serving().PID == old {
					t.Errorf("%s: worker %d serves before and after the restart", order, old)
				}
				o.count("restarts")
			}
			reloading := f.Start("systemctl", "reload", f.unit)
			f.Systemctl("restart", f.unit)
			<-reloading
			f.atRest(base.stored)
			o.count("restarts in a reload")
			f.WriteFile(f.config(), "nonsense = [")
			old := f.view().serving().PID
			f.Systemctl("restart", f.unit)
			if v := f.atRest(base.stored); v.serving().PID != old {
				t.Errorf("%s: restart with a broken configuration replaced worker %d by %d", order, old, v.serving().PID)
			}
			o.count("restarts with a broken configuration")
			f.WriteFile(f.config(), toml)
		})
		// While the worker is in its back-off nobody serves, but the port does not refuse either.
		f.arguments("-ready-then-die=100ms")
		for f.TrySystemctl("reload", f.unit).Code != 0 && order == "start-first" { // it may die before it is seen to be ready
		}
		f.Eventually(20*time.Second, func() string {
			if status, err := f.ask(); err != nil || status.Restart == nil {
				return fmt.Sprintf("the worker is not in its back-off: %s, %v", status.State, err)
			}
			return ""
		})
		run := f.Load(load.Options{Target: tcp(f.port), Clients: map[load.Class]int{load.New: 2}, Pause: 2 * time.Millisecond, Timeout: 20 * time.Second})
		f.progress(run, 2)
		f.arguments()
		f.Systemctl("restart", f.unit)
		f.progress(run, 100)
		f.atRest(base.stored)
		result := run.Stop()
		f.record(outcome{Case: "e restart in the back-off, " + order}, result)
		if lost := result.Failures() - cut(result); lost > 0 {
			t.Errorf("%s: restart in the back-off:\n%s", order, result)
		}
	}
})

// systemctl stop: what is in flight is answered, then the port refuses, and nothing is left.
var _ = scenario("s-e-stop", func(t *testing.T, m *Machine) {
	f := m.faulty("svs", quickWorker("svs", "start-first", 7020), 7020)
	f.start()
	f.atRest(-1)
	o := outcome{Case: "e stop"}
	run := f.Load(load.Options{Target: tcp(f.port), Clients: map[load.Class]int{load.Slow: 2, load.Late: 2}, SlowPath: "/slow?ms=300", Late: 50 * time.Millisecond, Pause: 5 * time.Millisecond})
	f.progress(run, 20)
	f.Systemctl("stop", f.unit)
	f.refuses("after stop")
	r := run.Stop()
	f.record(o, r)
	if n := lostInStop(r); n > 0 {
		t.Errorf("%d requests were lost in flight:\n%s", n, r)
	}

	// A worker that ignores its signals, and has a child that does so too, is killed in the end.
	f.arguments("-ignore-term", "-child")
	f.start()
	f.Eventually(10*time.Second, func() string {
		if n := len(f.Children(f.unit)); n != 2 {
			return fmt.Sprintf("%d processes of the worker", n)
		}
		return ""
	})
	start := time.Now()
	f.Systemctl("stop", f.unit)
	o = outcome{Case: "e stop, worker ignores its signals"}
	o.time("stop", time.Since(start))
	f.record(o, load.Result{})
	f.refuses("after a stop of a stubborn worker")
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("stop took %s; drain.timeout is 3 s, escalation 1 s", took)
	}
	// A stop that comes in the middle of a reload.
	f.arguments()
	f.start()
	f.arguments("-start-delay=10s")
	f.WriteFile(f.config(), replace(t, f.ReadFile(f.config()), `timeout = "5s"`, `timeout = "60s"`))
	reloading := f.Start("systemctl", "reload", f.unit)
	f.untilStarting()
	f.Systemctl("stop", f.unit)
	if r := <-reloading; r.Code == 0 {
		t.Error("a reload that a stop ended says 0")
	}
	// systemd ends the client of the reload with SIGTERM and takes that for a failure of the unit.
	f.TrySystemctl("reset-failed", f.unit)
	f.refuses("after a stop in a reload")
})

// systemctl stop between two starts of a supervisor that dies at once: systemd runs no ExecStopPost= then, drops the FD
// store and the runtime directory, and leaves the worker alive. The next start finds the address taken, ends what has it,
// and serves.
var _ = scenario("s-e-stop-crash-loop", func(t *testing.T, m *Machine) {
	f := m.faulty("svc", quickWorker("svc", "start-first", 7060), 7060)
	f.dropin(fmt.Sprintf("[Service]\nExecStart=\nExecStart=%s run svc\nRestartSec=3s\n", f.binary))
	f.arguments("-child") // without a marker
	f.start()
	f.arguments()
	f.install("one")
	f.Sh(fmt.Sprintf("printf '#!/bin/sh\nexit 7\n' > %[1]s.script; chmod 755 %[1]s.script; mv %[1]s.script %[1]s", f.binary))
	left := f.Children(f.unit)
	f.Kill(f.MainPID(f.unit), 9)
	f.Eventually(30*time.Second, func() string {
		shown := f.Systemctl("show", "-p", "SubState,ExecMainStatus", f.unit) + "\n"
		if !strings.Contains(shown, "SubState=auto-restart\n") || !strings.Contains(shown, "ExecMainStatus=7\n") { // of the script
			return shown
		}
		return ""
	})
	f.Systemctl("stop", f.unit)
	if alive := f.PIDs(f.unit); len(left) != 2 || !slices.Equal(alive, left) || f.view().stored != 0 {
		t.Errorf("after the stop processes %v of %v live, %d entries in the FD store", alive, left, f.view().stored)
	}
	f.install("one")
	o := outcome{Case: "e start after a stop in a crash loop"}
	start := time.Now()
	f.start()
	o.time("start", time.Since(start))
	f.record(o, load.Result{})
	v := f.atRest(-1)
	if pid := f.answers(fmt.Sprintf("127.0.0.1:%d", f.port)); pid != v.serving().PID {
		t.Errorf("%d answers, %d serves", pid, v.serving().PID)
	}
	for _, pid := range left {
		if f.Alive(pid) {
			t.Errorf("process %d is left", pid)
		}
	}
	if w := v.status.Warnings; len(w) != 1 || !strings.Contains(w[0], "has left processes in its control group") {
		t.Errorf("warnings: %q", w)
	}
	f.Systemctl("stop", f.unit)
	f.refuses("after the next stop")
})

// refuses checks that nothing is left of a stopped service.
func (f *faulty) refuses(when string) {
	f.t.Helper()
	if got := f.Get(fmt.Sprintf("127.0.0.1:%d", f.port), "/"); !strings.Contains(got, "refused") {
		f.t.Errorf("%s the port answers %q, want refused", when, got)
	}
	if v := f.view(); v.processes != 0 || v.stored != 0 || v.state != "inactive/dead" {
		f.t.Errorf("%s: %s, %d processes, %d entries in the FD store", when, v.state, v.processes, v.stored)
	}
}

// Soft-reboot (systemd 254 and later), then power-off, in a container of their own. systemd ends every service and makes
// its socket units anew; with FileDescriptorStorePreserve=yes the FD store stays, and with it the count of generations.
var _ = scenario("s-g-reboot", func(t *testing.T, shared *Machine) {
	if shared.local {
		t.Skip("needs a container of its own")
	}
	m := Boot(t, shared.Suite)
	m.WriteFile("/etc/systemd/system/svg.socket", "[Socket]\nListenStream=127.0.0.1:7031\nFileDescriptorName=unit\nService=supervisor@svg.service\n[Install]\nWantedBy=sockets.target\n")
	f := m.faulty("svg", quickWorker("svg", "start-first", 7030), 7030)
	f.dropin(fmt.Sprintf("[Service]\nExecStart=\nExecStart=%s run svg\nSockets=svg.socket\n", f.binary))
	f.Systemctl("enable", "--now", "svg.socket", f.unit)
	f.atRest(-1)
	if m.Systemd >= 254 {
		f.softReboot("restart")
		f.dropin(fmt.Sprintf("[Service]\nExecStart=\nExecStart=%s run svg\nSockets=svg.socket\nFileDescriptorStorePreserve=yes\n", f.binary))
		f.Systemctl("restart", f.unit)
		f.atRest(-1)
		f.softReboot("yes")
	}
	run := f.Load(load.Options{Target: tcp(f.port), Clients: map[load.Class]int{load.Slow: 2, load.Late: 2}, SlowPath: "/slow?ms=300", Late: 50 * time.Millisecond, Pause: 5 * time.Millisecond})
	f.progress(run, 20)
	m.PowerOff()
	r := run.Stop()
	f.record(outcome{Case: "e power-off"}, r)
	if n := lostInStop(r); n > 0 {
		t.Errorf("power-off: %d requests were lost in flight:\n%s", n, r)
	}
})

// softReboot reboots user space: what is the same afterwards must be what docs/survives.md says.
func (f *faulty) softReboot(preserve string) {
	f.t.Helper()
	before := f.view()
	bound, unit := f.ListeningInodes(7030), f.ListeningInodes(7031)
	run := f.Load(load.Options{Target: tcp(f.port), Clients: map[load.Class]int{load.Slow: 1, load.Late: 1}, SlowPath: "/slow?ms=300", Late: 50 * time.Millisecond, Pause: 5 * time.Millisecond})
	f.progress(run, 10)
	f.TrySystemctl("--no-block", "soft-reboot")
	// Nothing may be entered meanwhile: systemd stops every process before it kills them, and nsenter stops with its child.
	f.Eventually(60*time.Second, func() string {
		if status, err := f.ask(); err != nil || !status.Started.After(before.status.Started) {
			return fmt.Sprintf("no new supervisor: %v", err)
		}
		return ""
	})
	f.Try("systemctl", "is-system-running", "--wait")
	after := f.atRest(-1)
	r := run.Stop()
	same := func(a, b any) string {
		if reflect.DeepEqual(a, b) {
			return "survives"
		}
		return "is new"
	}
	o := outcome{Case: "g soft-reboot, FileDescriptorStorePreserve=" + preserve}
	o.Notes = append(o.Notes,
		"worker "+same(before.serving().PID, after.serving().PID),
		"generation count "+map[bool]string{true: "goes on", false: "begins anew"}[after.serving().N > before.serving().N],
		"bound socket "+same(bound, f.ListeningInodes(7030)), "unit's socket "+same(unit, f.ListeningInodes(7031)))
	want := []string{"worker is new", "generation count begins anew", "bound socket is new", "unit's socket is new"}
	if preserve == "yes" {
		want[1], want[2] = "generation count goes on", "bound socket survives"
		if n := r.Failures(); n > 0 {
			f.t.Errorf("soft-reboot: %d requests failed at a socket that survives:\n%s", n, r)
		}
	}
	if !slices.Equal(o.Notes, want) {
		f.t.Errorf("%s: %q, want %q", o.Case, o.Notes, want)
	}
	f.record(o, r)
	if n := lostInStop(r); n > 0 {
		f.t.Errorf("soft-reboot: %d requests were lost in flight:\n%s", n, r)
	}
	if err := f.tryReload(); err != nil {
		f.t.Errorf("the reload after a soft-reboot: %v", err)
	}
}

// lostInStop is what a stop must not lose. When a listener is closed the kernel resets what its queue holds and nobody
// has accepted yet: one connection of each client at most, and no server can do anything about it.
func lostInStop(r load.Result) int64 {
	lost, resets := r.Failures()-refused(r), int64(0)
	for _, c := range r.Classes {
		resets += c.Kinds[load.Reset]
	}
	return lost - min(resets, 4)
}
