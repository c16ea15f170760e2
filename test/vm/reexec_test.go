//go:build vm

package vm

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// reexec runs `supervisor reexec`, which must succeed and keep the process; it returns how long it took.
func (f *faulty) reexec(version string) time.Duration {
	f.t.Helper()
	before := f.view()
	r := f.supervisor("reexec", f.name)
	if r.Code != 0 {
		f.t.Errorf("reexec: exit %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	after, err := f.ask()
	if err != nil {
		f.t.Fatal(err)
	}
	if after.PID != before.main || after.Version != version || !after.Started.After(before.status.Started) {
		f.t.Errorf("after reexec: pid %d version %s, started %s; want pid %d version %s", after.PID, after.Version, after.Started, before.main, version)
	}
	return r.Took
}

// install puts another build of the supervisor in the place of the service's own.
func (f *faulty) install(version string) {
	f.t.Helper()
	path, err := faultBuild(version)
	if err != nil {
		f.t.Fatal(err)
	}
	f.InstallBinary(path, f.binary)
}

// The binary is replaced in place: idle, in a handoff, with two generations draining, ten times between two builds.
var _ = scenario("s-d-reexec", func(t *testing.T, m *Machine) {
	// No generation that drains may be escalated while it is looked at.
	f := m.faulty("svd", replace(t, quickWorker("svd", "start-first", 7040), `timeout  = "3s"`, `timeout  = "60s"`), 7040)
	f.start()
	if err := f.tryReload(); err != nil {
		t.Fatal(err)
	}
	base := f.atRest(-1)
	names := f.storedNames()
	f.loaded(outcome{Case: "d ten upgrades between two builds"}, func(o *outcome) {
		for i := range 10 {
			version := []string{"two", "one"}[i%2]
			f.install(version)
			before, err := f.ask()
			if err != nil {
				t.Fatal(err)
			}
			o.time("reexec", f.reexec(version))
			o.count("upgrades")
			v := f.atRest(base.stored)
			if got, want := story(v.status), story(before); !reflect.DeepEqual(got, want) {
				t.Errorf("upgrade %d: status says\n%s\nbefore\n%s", i, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if now := f.storedNames(); now != names {
				t.Errorf("upgrade %d: FD store holds %s, before %s", i, now, names)
			}
		}
		if err := f.tryReload(); err != nil {
			t.Errorf("the reload after ten upgrades: %v", err)
		}
		f.atRest(base.stored)
	})

	f.loaded(outcome{Case: "d reexec in a handoff"}, func(o *outcome) {
		for _, point := range []string{"before check", "before spawn", "before ready", "before switch", "before divert", "before signal"} {
			inDrain := point == "before divert" || point == "before signal"
			f.WriteFile(f.file(), point+": delay "+map[bool]string{false: "1s", true: "30s"}[inDrain])
			reloaded := make(chan error)
			go func() { reloaded <- f.tryReload() }()
			f.Eventually(30*time.Second, func() string {
				if f.Exists(f.file()) {
					return "the reload has not come to " + point
				}
				return ""
			})
			o.time("reexec", f.reexec("one"))
			o.count("reexecs")
			// The handoff is waited for, the drain is not, and its client is told; a quick drain may end before.
			err := <-reloaded
			if told := err != nil && strings.Contains(err.Error(), "the supervisor's binary is replaced"); !told && (err != nil || inDrain) {
				t.Errorf("reload with a reexec %s: %v", point, err)
			}
			f.atRest(base.stored)
		}
	})

	f.loaded(outcome{Case: "d reexec with two generations draining"}, func(o *outcome) {
		f.arguments("-drain-delay=30s")
		if err := f.tryReload(); err != nil {
			t.Error(err)
		}
		f.atRest(base.stored)
		for i := range 2 {
			if i == 1 {
				f.arguments()
			}
			if r := f.supervisor("reload", f.name); r.Code != 0 {
				t.Errorf("reload: %s", r.Stderr)
			}
		}
		before := states(f, "draining")
		if len(before) != 2 {
			t.Errorf("draining: %v", before)
		}
		f.reexec("one")
		if now := states(f, "draining"); !reflect.DeepEqual(now, before) {
			t.Errorf("draining after reexec %v, before %v", now, before)
		}
		f.Kill(f.MainPID(f.unit), 9)
		f.Eventually(30*time.Second, func() string {
			if v := f.view(); v.err != nil || v.main == 0 {
				return "no supervisor"
			}
			return ""
		})
		if now := states(f, "draining"); !reflect.DeepEqual(now, before) {
			t.Errorf("draining after SIGKILL of the supervisor %v, before %v", now, before)
		}
		for _, g := range before {
			_, pid, _ := strings.Cut(g, ":")
			f.Run("kill", "-9", pid)
		}
		if err := f.tryReload(); err != nil {
			t.Error(err)
		}
		f.atRest(base.stored)
	})
})

// states lists the generations in a state with their pids.
func states(f *faulty, state string) (list []string) {
	f.t.Helper()
	status, err := f.ask()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, g := range status.Generations {
		if g.State == state {
			list = append(list, fmt.Sprintf("%d:%d", g.N, g.PID))
		}
	}
	return list
}

// A binary that cannot take over leaves the old one in charge, which says why.
var _ = scenario("s-d-reexec-broken", func(t *testing.T, m *Machine) {
	f := m.faulty("svb", quickWorker("svb", "start-first", 7050), 7050)
	f.start()
	base := f.atRest(-1)
	pid := base.serving().PID
	script := func(text string) func() {
		return func() {
			f.install("one") // as an executable file
			f.Sh(fmt.Sprintf("printf '%%s\\n' '#!/bin/sh' %s > %s", shellQuote(text), f.binary+".script") + "; chmod 755 " + f.binary + ".script; mv " + f.binary + ".script " + f.binary)
		}
	}
	f.loaded(outcome{Case: "d reexec of a broken binary"}, func(o *outcome) {
		broken := map[string]func(){
			"missing":        func() { f.Remove(f.binary) },
			"not executable": func() { f.Sh("cp " + f.binary + " /tmp/not; chmod 644 /tmp/not; mv /tmp/not " + f.binary) },
			"truncated": func() {
				f.Sh("head -c 100000 " + f.binary + " > /tmp/cut; chmod 755 /tmp/cut; mv /tmp/cut " + f.binary)
			},
			"crashes at once":     script("kill -SEGV $$"),
			"older state format":  script("echo state has format 9, this supervisor knows up to 8 >&2; exit 1"),
			"knows no trial runs": script("echo unknown command >&2; exit 2"),
		}
		if m.Systemd == 257 || thorough() { // takes ten seconds
			broken["hanging at its trial"] = script("exec sleep 60")
		}
		for what, breakIt := range broken {
			f.install("one")
			breakIt()
			r := f.supervisor("reexec", f.name)
			if r.Code != 1 || !strings.Contains(r.Stderr, "stays in charge") {
				t.Errorf("reexec of a binary that is %s: exit %d: %s%s", what, r.Code, r.Stdout, r.Stderr)
			}
			o.count("refused")
			f.install("one")
			if v := f.atRest(base.stored); v.main != base.main || v.serving().PID != pid {
				t.Errorf("after reexec of a binary that is %s: supervisor %d, worker %d; before %d, %d", what, v.main, v.serving().PID, base.main, pid)
			}
		}
		if err := f.tryReload(); err != nil {
			t.Errorf("reload: %v", err)
		}
		pid = f.atRest(base.stored).serving().PID
	})
	// One that passes its trial and dies afterwards: execve cannot be taken back, but nothing is lost.
	f.loaded(outcome{Case: "d reexec of a binary that dies after its trial"}, func(o *outcome) {
		script(`[ "$1" = preflight ] || exit 7`)()
		dead := f.Start("supervisor", "reexec", f.name)
		f.Eventually(30*time.Second, func() string {
			if f.Property(f.unit, "ExecMainStatus") != "7" {
				return "it has not died"
			}
			return ""
		})
		f.install("one")
		if v := f.atRest(base.stored); v.serving().PID != pid {
			t.Errorf("worker %d, before %d", v.serving().PID, pid)
		}
		<-dead
	})
})
