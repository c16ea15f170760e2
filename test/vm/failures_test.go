//go:build vm

package vm

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/test/load"
)

// Reloads that must fail and change nothing; a good one right after each of them works.
var _ = scenario("c-failed-reloads-haproxy", func(t *testing.T, m *Machine) {
	good := binds("127.0.0.1:6400", "127.0.0.1:6401")
	s := m.haproxy("fail", good).start()
	toml := s.ReadFile(s.config())
	inodes := s.inodesOf([]int{6400, 6401})

	fails := func(what string, breakIt, mend func(), words ...string) {
		t.Run(what, func(t *testing.T) {
			s := &service{Machine: m.With(t), name: s.name, unit: s.unit}
			old := s.answers("127.0.0.1:6400")
			clients := map[load.Class]int{load.New: 2, load.Late: 2, load.Keep: 1}
			result := s.whileLoaded(load.Options{Target: tcp(6400), Clients: clients, Pause: 2 * time.Millisecond}, func() {
				breakIt()
				s.reloadFails(words...)
				if pid := s.answers("127.0.0.1:6400"); pid != old {
					t.Errorf("worker %d answers after the failed reload, want %d", pid, old)
				}
				if after := s.inodesOf([]int{6400, 6401}); !slices.Equal(inodes, after) {
					t.Errorf("listening inodes %v after the failed reload, before %v", after, inodes)
				}
				mend()
				s.reload()
			})
			s.report("c "+what, result)
			if n := result.Failures(); n > 0 {
				t.Errorf("%d requests failed:\n%s", n, result)
			}
			s.drained(1)
			if pid := s.answers("127.0.0.1:6400"); pid == old {
				t.Errorf("worker %d still answers after the good reload", pid)
			}
			if after := s.inodesOf([]int{6400, 6401}); !slices.Equal(inodes, after) {
				t.Errorf("listening inodes %v after the good reload, before %v", after, inodes)
			}
		})
	}
	mendConfig := func() { s.haproxyConfig(good) }
	mendTOML := func() { s.WriteFile(s.config(), toml) }

	fails("broken haproxy.cfg", func() { s.haproxyConfig(binds("127.0.0.1:6400") + "\n    no_such_keyword\n") }, mendConfig, "check")
	fails("broken NAME.toml", func() { s.WriteFile(s.config(), toml+"\n[worker\n") }, mendTOML, s.config())
	m.WriteFile("/run/systemd/system/occupy.service", "[Service]\nExecStart=/usr/bin/worker -bind tcp:127.0.0.1:6409\n")
	m.Systemctl("daemon-reload")
	m.Systemctl("start", "occupy.service")
	t.Cleanup(func() { m.Systemctl("stop", "occupy.service") })
	m.Eventually(5*time.Second, func() string {
		if len(m.ListeningInodes(6409)) == 0 {
			return "nothing listens on 6409"
		}
		return ""
	})
	fails("occupied port", func() { s.haproxyConfig(good + "\n" + binds("127.0.0.1:6409")) }, mendConfig, "6409")
	fails("missing binary", func() {
		s.WriteFile(s.config(), replace(t, toml, `command = ["/usr/sbin/haproxy"`, `command = ["/usr/sbin/no-such-haproxy"`))
	}, mendTOML, "no-such-haproxy")
	fails("crash at start", func() { s.WriteFile(s.config(), replace(t, toml, `"-db", `, `"-db", "--no-such-flag", `)) }, mendTOML, "exit")
	// HAProxy accepts from its start, beside the old one.
	quick := replace(t, toml, `timeout = "20s"`, `timeout = "2s"`)
	fails("never ready, command", func() {
		s.WriteFile(s.config(), replace(t, quick, `when   = ["haproxy"]`, `when   = ["haproxy", "command"]`+"\n"+`command = ["/bin/false"]`))
	}, mendTOML, "2s", "still missing command")
	fails("never ready, admin socket", func() {
		s.WriteFile(s.config(), quick)
		path := "/etc/haproxy/fail.cfg"
		s.WriteFile(path, replace(t, s.ReadFile(path), "/run/supervisor/fail/admin.sock", "/run/supervisor/fail/elsewhere.sock"))
	}, func() { mendConfig(); mendTOML() }, "2s", "admin.sock")
})

var _ = scenario("c-failed-reloads-worker", func(t *testing.T, m *Machine) {
	s := m.service("failw", replace(t, goWorker("failw", socketTable("http", "127.0.0.1:6410")), `timeout = "5s"`, `timeout = "2s"`), "")
	s.arguments()
	s.start()
	inodes := s.ListeningInodes(6410)
	tests := []struct {
		what  string
		lines []string
		words []string
	}{
		{"check fails", []string{"broken"}, []string{"check", "this file is broken"}},
		{"exits at start", []string{"-exit=7", "-stderr=the last words of a worker"}, []string{"7", "the last words of a worker"}},
		{"its child says why", []string{"-child", "-child-stderr=the last words of a child", "-never-ready"}, []string{"2s", "the last words of a child"}},
		{"hangs before ready", []string{"-hang"}, []string{"2s"}},
		{"never ready", []string{"-never-ready"}, []string{"2s"}},
		{"exits 0 at start", []string{"-exit=0"}, []string{"exit"}},
	}
	for _, test := range tests {
		t.Run(test.what, func(t *testing.T) {
			s := &service{Machine: m.With(t), name: s.name, unit: s.unit}
			old := s.answers("127.0.0.1:6410")
			s.underLoad("c "+test.what, tcp(6410), map[load.Class]int{load.New: 2, load.Late: 2, load.Keep: 1}, func() {
				s.arguments(test.lines...)
				s.reloadFails(test.words...)
				if pid := s.answers("127.0.0.1:6410"); pid != old {
					t.Errorf("worker %d answers after the failed reload, want %d", pid, old)
				}
				s.drained(1)
				s.arguments()
				s.reload()
			})
			s.drained(1)
			if after := s.ListeningInodes(6410); !slices.Equal(inodes, after) {
				t.Errorf("listening inodes %v, before %v", after, inodes)
			}
		})
	}
})

// replace is strings.Replace that must find something.
func replace(t testing.TB, text, old, new string) string {
	t.Helper()
	if !strings.Contains(text, old) {
		t.Fatalf("%q is not in %q", old, text)
	}
	return strings.Replace(text, old, new, 1)
}
