//go:build vm

package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/test/load"
)

// What init writes for every preset, and the hardening drop-ins, are units that this systemd understands.
var _ = scenario("units-verify", func(t *testing.T, m *Machine) {
	presets, err := os.ReadDir(filepath.Join(unitsDir(), "presets"))
	if err != nil {
		t.Fatal(err)
	}
	var units []string
	for _, p := range presets {
		name := "verify-" + p.Name()
		args := []string{"supervisor", "init", p.Name(), name}
		if p.Name() != "sshd" { // which gives logins
			args = append(args, "--harden", "known")
		}
		out := m.Run(args...)
		t.Cleanup(func() {
			m.Sh("rm -rf /etc/supervisor/" + name + ".toml /etc/systemd/system/supervisor@" + name + ".service.d /etc/systemd/system/supervisor-" + name + "-*.socket")
		})
		lines := strings.Split(strings.TrimSpace(out), "\n")
		_, list, found := strings.Cut(lines[len(lines)-1], "systemctl enable --now ")
		if !found {
			t.Fatalf("init %s says last: %s", p.Name(), lines[len(lines)-1])
		}
		units = append(units, strings.Fields(list)...)
	}
	units = append(units, m.socketExample().unit, "web.socket")
	t.Cleanup(func() { m.Systemctl("daemon-reload") })
	m.Systemctl("daemon-reload")
	r := m.Try(append([]string{"systemd-analyze", "verify", "--man=no"}, units...)...)
	for line := range strings.Lines(r.Stdout + r.Stderr) {
		if m.Systemd < 254 && strings.Contains(line, "'FileDescriptorStorePreserve'") {
			continue // it says so, and keeps the store over restarts all the same
		}
		t.Errorf("systemd-analyze verify: %s", line)
	}
})

// socketExample installs the example with a socket unit, as its README says.
func (m *Machine) socketExample() *service {
	m.t.Helper()
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(unitsDir(), "examples", "socket", name))
		if err != nil {
			m.t.Fatal(err)
		}
		return string(text)
	}
	m.t.Cleanup(func() { m.Remove("/etc/systemd/system/web.socket") })
	m.WriteFile("/etc/systemd/system/web.socket", read("web.socket"))
	s := m.service("web", read("web.toml"), "")
	m.WriteFile("/etc/systemd/system/"+s.unit+".d/socket.conf", read(s.unit+".d/socket.conf"))
	return s
}

// The example with a socket unit works as it is.
var _ = scenario("units-example-socket", func(t *testing.T, m *Machine) {
	s := m.socketExample()
	built, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	m.InstallBinary(built["worker"], "/usr/local/bin/web")
	m.Systemctl("daemon-reload")
	m.Systemctl("enable", "--now", "web.socket", s.unit)
	t.Cleanup(func() { m.Systemctl("disable", "--now", "web.socket", s.unit) })
	old := s.answers("127.0.0.1:8080")
	s.underLoad("units-example-socket", tcp(8080), map[load.Class]int{load.New: 2, load.Late: 2}, s.reload)
	s.drained(1)
	if pid := s.answers("127.0.0.1:8080"); pid == old {
		t.Errorf("worker %d answers after the reload, too", pid)
	}
	if journal := s.Journal(s.unit); strings.Contains(journal, "cannot be steered") || strings.Contains(journal, "does not use socket") {
		t.Errorf("warnings:\n%s", journal)
	}
})

// The figures of the documentation.
var _ = scenario("units-security", func(t *testing.T, m *Machine) {
	for grade, limit := range map[string]float64{"any": 4.7, "known": 3.8} {
		name := "score-" + grade
		m.Run("supervisor", "init", "haproxy", name, "--harden", grade)
		t.Cleanup(func() {
			m.Remove("/etc/supervisor/"+name+".toml", "/etc/systemd/system/supervisor@"+name+".service.d")
			m.Systemctl("daemon-reload")
		})
		m.Systemctl("daemon-reload")
		out := m.Run("systemd-analyze", "security", "--offline=yes", "supervisor@"+name+".service")
		lines := strings.Split(strings.TrimSpace(out), "\n")
		_, text, _ := strings.Cut(lines[len(lines)-1], ".service: ")
		score, err := strconv.ParseFloat(strings.Fields(text + " ?")[0], 64)
		if err != nil || score > limit {
			t.Errorf("%s: %s, want at most %.1f", grade, lines[len(lines)-1], limit)
		}
		t.Logf("%s %.1f", grade, score)
	}
})

// A process that the service left behind is ended by a stop, and by nothing else. The process is a stranger in the
// control group: it shows that a left-over needs no mark.
var _ = scenario("sweep", func(t *testing.T, m *Machine) {
	s := m.service("swept", `[worker]
command = ["/usr/bin/worker"]
[[socket]]
name = "http"
listen = "127.0.0.1:6080"
`, "").start()
	leave := func() int {
		group := m.Property(s.unit, "ControlGroup")
		pid, err := strconv.Atoi(strings.TrimSpace(m.Sh("sleep 600 >/dev/null 2>&1 & echo $! > /sys/fs/cgroup" + group + "/cgroup.procs; echo $!")))
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	left := leave()

	m.Kill(m.MainPID(s.unit), 9)
	m.Eventually(10*time.Second, func() string {
		if state := m.Property(s.unit, "ActiveState"); state != "active" || m.MainPID(s.unit) == 0 {
			return state
		}
		return ""
	})
	if !m.Alive(left) {
		t.Error("a crash of the supervisor ended another process of the unit")
	}
	m.Systemctl("restart", s.unit)
	if !m.Alive(left) {
		t.Error("a restart of the service ended another process of the unit")
	}

	cursor := m.Cursor()
	m.Systemctl("stop", s.unit)
	if m.Alive(left) {
		t.Error("a stop of the service left a process behind")
	}
	if said := m.JournalAfter(s.unit, cursor); !strings.Contains(said, fmt.Sprintf("sent SIGTERM to process %d (sleep), left behind by service swept", left)) {
		t.Errorf("the journal does not name the process that was ended:\n%s", said)
	}

	s.start()
	cursor = m.Cursor()
	m.Systemctl("stop", s.unit)
	if said := m.JournalAfter(s.unit, cursor); strings.Contains(said, "left behind") {
		t.Errorf("with nothing left:\n%s", said)
	}

	// A stop that runs into its time limit is no success for systemd, but nothing follows it: what is left is ended.
	m.WriteFile("/etc/systemd/system/"+s.unit+".d/test.conf", "[Service]\nTimeoutStopSec=1\n")
	m.Systemctl("daemon-reload")
	m.WriteFile(s.config(), strings.Replace(m.ReadFile(s.config()), `"/usr/bin/worker"`, `"/usr/bin/worker", "-ignore-term"`, 1)+"[drain]\ntimeout = \"10m\"\n")
	s.start()
	workers := m.Children(s.unit)
	cursor = m.Cursor()
	m.TrySystemctl("stop", s.unit)
	if result := m.Property(s.unit, "Result"); result != "timeout" {
		t.Errorf("the stop ended with %q, not by its time limit", result)
	}
	for _, pid := range workers {
		if m.Alive(pid) {
			t.Errorf("a stop that ran into its time limit left process %d behind", pid)
		}
	}
	if said := m.JournalAfter(s.unit, cursor); !strings.Contains(said, "sent SIGKILL to process") {
		t.Errorf("the journal does not name the process that was killed:\n%s", said)
	}
})
