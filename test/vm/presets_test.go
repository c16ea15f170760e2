//go:build vm

package vm

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/test/load"
)

// What init writes works as it is, hardened, for a server that binds by itself, one that starts as root and drops to a
// user, and one that runs as a user of its own on a privileged port: reloads, a killed supervisor, a restart, and a reload
// that fails and quotes the worker's last words, which a user's service may not read by itself.
var _ = scenario("presets", func(t *testing.T, m *Machine) {
	m.WriteFile("/etc/supervisor-presets/haproxy.cfg", `global
    stats socket /run/supervisor/p-haproxy/admin.sock mode 600 level admin expose-fd listeners
    user haproxy
    group haproxy
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    option idle-close-on-response
listen http
    bind 127.0.0.1:6810
    bind [::1]:6810 v6only
    http-request return status 200 content-type text/plain lf-string "pid=%pid\n"
`)
	m.WriteFile("/etc/supervisor-presets/nginx.conf", `user www-data;
worker_processes 2;
events {}
http {
    access_log off;
    server {
        listen 127.0.0.1:6811;
        location / { return 200 "pid=$pid\n"; }
    }
}
`)
	t.Cleanup(func() { m.Remove("/etc/supervisor-presets") })
	haproxy := func(toml string) string {
		return strings.ReplaceAll(toml, "/etc/haproxy/haproxy.cfg", "/etc/supervisor-presets/haproxy.cfg")
	}
	m.preset("haproxy", 6810, "any", haproxy)
	m.preset("haproxy", 6810, "known", haproxy)
	m.preset("nginx", 6811, "known", func(toml string) string {
		toml = strings.ReplaceAll(toml, "/etc/nginx/nginx.conf", "/etc/supervisor-presets/nginx.conf")
		return strings.ReplaceAll(toml, "/run/nginx.pid", "${runtime}/nginx.pid")
	}, "--listen", "127.0.0.1:6811")
	m.preset("go", 681, "known", func(toml string) string {
		return strings.ReplaceAll(toml, "/usr/local/bin/p-go", "/usr/bin/worker")
	}, "--listen", "127.0.0.1:681")
})

// preset sets a service up with init, changes its configuration by edit, and puts it under load.
func (m *Machine) preset(preset string, port int, grade string, edit func(toml string) string, flags ...string) {
	t := m.t.(*testing.T)
	m = m.With(t)
	name := "p-" + preset
	toml := "/etc/supervisor/" + name + ".toml"
	out := m.Run(append([]string{"supervisor", "init", preset, name, "--harden", grade}, flags...)...)
	_, list, _ := strings.Cut(out, "systemctl enable --now ")
	units := strings.Fields(list)
	defer func() {
		m.Systemctl(append([]string{"stop"}, units...)...)
		m.Sh("rm -rf " + toml + " /etc/systemd/system/supervisor@" + name + ".service.d /etc/systemd/system/supervisor-" + name + "-*.socket")
		m.Systemctl("daemon-reload")
	}()
	m.WriteFile(toml, edit(m.ReadFile(toml)))
	m.Systemctl("daemon-reload")
	s := &service{Machine: m, name: name, unit: "supervisor@" + name + ".service"}
	if r := m.TrySystemctl(append([]string{"start"}, units...)...); r.Code != 0 {
		t.Errorf("start %v: %s\n%s", units, r.Stderr, m.Journal(s.unit))
		return
	}
	before, workers := m.ListeningInodes(port), len(m.Children(s.unit))
	what := fmt.Sprintf("preset %s, hardened %s", preset, grade)
	m.underLoad(what, tcp(port), map[load.Class]int{load.New: 2, load.Late: 2}, func() {
		s.reload()
		s.drained(workers)
		s.reload()
		main := m.MainPID(s.unit)
		m.Kill(main, 9)
		m.Eventually(10*time.Second, func() string {
			if pid := m.MainPID(s.unit); pid == 0 || pid == main || m.Property(s.unit, "ActiveState") != "active" {
				return "the supervisor is not back"
			}
			return ""
		})
		s.reload()
		m.Systemctl("restart", s.unit)
		good := m.ReadFile(toml)
		m.WriteFile(toml, regexp.MustCompile(`(?m)^command .*`).ReplaceAllString(good, `command = ["/usr/bin/worker", "-stderr=the last words of a worker", "-exit=7"]`))
		old := m.MainPID(s.unit)
		s.reloadFails("7", "the last words of a worker")
		m.WriteFile(toml, good)
		if pid := m.MainPID(s.unit); pid != old {
			t.Errorf("%s: supervisor %d after the failed reload, before %d", what, pid, old)
		}
	})
	if after := m.ListeningInodes(port); len(before) == 0 || !subset(before, after) {
		t.Errorf("%s: listening inodes %v, before %v", what, after, before)
	}
	if said := s.supervisor("status", name).Stdout; strings.Contains(said, "cannot be steered") {
		t.Errorf("%s: %s", what, said)
	}
}

// subset reports whether every one of a is in b.
func subset(a, b []uint64) bool {
	have := map[uint64]bool{}
	for _, x := range b {
		have[x] = true
	}
	for _, x := range a {
		if !have[x] {
			return false
		}
	}
	return true
}
