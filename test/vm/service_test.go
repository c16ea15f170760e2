//go:build vm

package vm

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/test/load"
)

// service is one supervised service of a scenario.
type service struct {
	*Machine
	name, unit string
}

// service writes NAME.toml and, where dropin is not empty, a drop-in for the unit; it starts nothing.
// At the end of the test the service is stopped and nothing of it may be left.
func (m *Machine) service(name, toml, dropin string) *service {
	m.t.Helper()
	s := &service{Machine: m, name: name, unit: "supervisor@" + name + ".service"}
	s.configure(toml)
	if dropin != "" {
		m.WriteFile("/etc/systemd/system/"+s.unit+".d/test.conf", dropin)
		m.Systemctl("daemon-reload")
	}
	m.t.Cleanup(s.remove)
	return s
}

// configure writes NAME.toml.
func (s *service) configure(toml string) {
	s.t.Helper()
	if s.local {
		toml = strings.NewReplacer(`timeout = "5s"`, `timeout = "50s"`, `timeout = "20s"`, `timeout = "200s"`).Replace(toml)
	}
	s.WriteFile(s.config(), toml)
}

func (s *service) config() string { return "/etc/supervisor/" + s.name + ".toml" }

func (s *service) remove() {
	if s.pid1 == 0 {
		return // powered off
	}
	s.TrySystemctl("stop", s.unit)
	if left := s.PIDs(s.unit); len(left) > 0 {
		s.t.Errorf("processes left after stop: %v", left)
		for _, pid := range left {
			s.Kill(pid, 9)
		}
	}
	s.TrySystemctl("reset-failed", s.unit)
	s.Remove(s.config(), "/etc/systemd/system/"+s.unit+".d")
}

// start starts the service and fails with its journal if that does not work.
func (s *service) start() *service {
	s.t.Helper()
	if r := s.TrySystemctl("start", s.unit); r.Code != 0 {
		s.t.Fatalf("start %s: %s", s.unit, r.Stderr)
	}
	return s
}

// reload reloads, which must succeed.
func (s *service) reload() {
	s.t.Helper()
	cursor := s.Cursor()
	if r := s.TrySystemctl("reload", s.unit); r.Code != 0 {
		s.t.Fatalf("reload %s: exit %d: %s\n%s", s.unit, r.Code, r.Stderr, s.JournalAfter(s.unit, cursor))
	}
}

// reloadFails reloads, which must fail and say why: one sentence in the journal, followed by the worker's last words
// where it left any, hold all of words.
func (s *service) reloadFails(words ...string) {
	s.t.Helper()
	cursor := s.Cursor()
	r := s.TrySystemctl("reload", s.unit)
	said := s.JournalAfter(s.unit, cursor)
	if r.Code == 0 {
		s.t.Errorf("systemctl reload says 0, but should fail; journal:\n%s", said)
	}
	var sentences int
	var message string
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "supervisor: error: ") {
			sentences++
			message += line
		} else if strings.HasPrefix(line, "supervisor: output: ") {
			message += line
		}
	}
	if sentences != 1 || !containsAll(message, words) {
		s.t.Errorf("want one line \"supervisor: error: …\" and in it or in the output %q; journal of the failed reload:\n%s", words, said)
	}
}

func containsAll(text string, words []string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
}

// drained waits until only the supervisor and n workers are left.
func (s *service) drained(n int) {
	s.t.Helper()
	s.Eventually(30*time.Second, func() string {
		if left := s.Children(s.unit); len(left) != n {
			return fmt.Sprintf("workers %v, want %d", left, n)
		}
		return ""
	})
}

// answers returns the pid of the worker that answers at address, which must be one of the service's.
func (s *service) answers(address string) int {
	s.t.Helper()
	pid, text := s.Worker(address)
	if pid == 0 {
		s.t.Fatalf("%s: %s", address, text)
	}
	if !slices.Contains(s.PIDs(s.unit), pid) {
		s.t.Errorf("%s is answered by %d, which is not of %s", address, pid, s.unit)
	}
	return pid
}

// supervisor runs the command line.
func (s *service) supervisor(args ...string) Result {
	s.t.Helper()
	return s.Try(append([]string{"supervisor"}, args...)...)
}

// underLoad runs do under load on address, with enough requests before and after it to notice, and demands that
// none failed. The counts go into the report.
func (m *Machine) underLoad(what string, target load.Target, clients map[load.Class]int, do func()) load.Result {
	m.t.Helper()
	result := m.whileLoaded(load.Options{Target: target, Clients: clients, Pause: 2 * time.Millisecond}, do)
	m.report(what, result)
	if result.Failures() > 0 {
		m.t.Errorf("%s: %d of %d requests failed:\n%s", what, result.Failures(), result.Requests(), result)
	}
	// Each kept connection may be found closed once for each worker that ends; more are requests that were lost.
	if n, most := result.IdleClosed(), int64(clients[load.Keep]*len(result.Workers())); n > most {
		m.t.Errorf("%s: %d requests met a closed connection, where %d may:\n%s", what, n, most, result)
	}
	return result
}

func (m *Machine) whileLoaded(o load.Options, do func()) load.Result {
	m.t.Helper()
	run := m.Load(o)
	m.progress(run, 50)
	do()
	m.progress(run, 50)
	return run.Stop()
}

// progress waits until n more requests were begun.
func (m *Machine) progress(run *load.Run, n int64) {
	m.t.Helper()
	from := run.Sent()
	m.Eventually(30*time.Second, func() string {
		if sent := run.Sent() - from; sent < n {
			return fmt.Sprintf("only %d requests sent:\n%s", sent, run.Snapshot())
		}
		return ""
	})
}

// report adds a line to the file SUPERVISOR_TEST_REPORT, if any: what was counted in which case on which systemd.
func (m *Machine) report(what string, r load.Result) {
	m.note(fmt.Sprintf("%-36s %8d requests %4d failed %3d idle-closed  max %6.0f ms", what, r.Requests(), r.Failures(), r.IdleClosed(), float64(r.Max())/1e6))
	m.record(outcome{Case: what}, r)
	if testing.Verbose() {
		m.t.Logf("%s:\n%s", what, r)
	}
}

// note adds a line of figures to that file.
func (m *Machine) note(text string) {
	m.t.Helper()
	reportLine(m.t, fmt.Sprintf("systemd %d  %s", m.Systemd, text))
}

func reportLine(t testing.TB, line string) {
	t.Helper()
	path := os.Getenv("SUPERVISOR_TEST_REPORT")
	if path == "" {
		t.Log(line)
		return
	}
	if err := appendLine(path, line); err != nil {
		t.Error(err)
	}
}

// goWorker is the configuration of test/worker with its sockets by LISTEN_FDS. More arguments come from the file
// that [service.arguments] writes, so that the next generation can differ without a change of the configuration.
func goWorker(name, sockets string) string {
	return fmt.Sprintf(`
[worker]
command = ["/usr/bin/worker", "-generation", "${generation}", "-args", "/etc/supervisor/%[1]s.args"]
check   = ["/usr/bin/worker", "-check", "-args", "/etc/supervisor/%[1]s.args"]

[ready]
when    = ["notify"]
timeout = "5s"

[drain]
signal = "SIGTERM"
settle = "100ms"
timeout = "10s"
%[2]s`, name, sockets)
}

// arguments sets the further arguments of a goWorker's next generation.
func (s *service) arguments(lines ...string) {
	s.t.Helper()
	s.WriteFile("/etc/supervisor/"+s.name+".args", strings.Join(lines, "\n")+"\n")
}

func socketTable(name, listen string) string {
	return fmt.Sprintf("\n[[socket]]\nname = %q\nlisten = %q\n", name, listen)
}

func tcp(port int) load.Target {
	return load.Target{Address: fmt.Sprintf("127.0.0.1:%d", port)}
}
