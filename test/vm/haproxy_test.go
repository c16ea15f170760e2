//go:build vm

package vm

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/test/load"
)

// haproxy is a service with HAProxy as the worker; body is the rest of its haproxy.cfg after the frontend's name,
// with its bind lines first, and global are further lines of the global section.
func (m *Machine) haproxy(name, body string, global ...string) *service {
	m.t.Helper()
	s := m.service(name, fmt.Sprintf(`
[worker]
command = ["/usr/sbin/haproxy", "-db", "-f", "/etc/haproxy/%[1]s.cfg", "-x", "sockpair@${getsocks_fd}"]
check   = ["/usr/sbin/haproxy", "-c", "-f", "/etc/haproxy/%[1]s.cfg"]
sockets = ["getsocks"]

[ready]
when   = ["haproxy"]
socket = "/run/supervisor/%[1]s/admin.sock"
timeout = "20s"

[drain]
divert = "auto"
settle = "100ms"
signal = "SIGUSR1"

[handoff]
fetch    = "getsocks"
getsocks = "/run/supervisor/%[1]s/admin.sock"
`, name), "")
	s.haproxyConfig(body, global...)
	return s
}

func (s *service) haproxyConfig(body string, global ...string) {
	s.t.Helper()
	// Of two lines the last one counts.
	global = append([]string{"nbthread 1"}, global...)
	s.WriteFile("/etc/haproxy/"+s.name+".cfg", fmt.Sprintf(`global
    stats socket /run/supervisor/%s/admin.sock mode 600 level admin expose-fd listeners
    %s
defaults
    mode http
    option idle-close-on-response
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend web
%s
    http-request return status 200 content-type text/plain lf-string "pid=%%pid\n"
`, s.name, strings.Join(global, "\n    "), body))
}

func binds(lines ...string) string { return "    bind " + strings.Join(lines, "\n    bind ") }

// site makes the certificate /etc/haproxy/site.pem.
func (m *Machine) site() {
	m.t.Helper()
	m.Sh("mkdir -p /etc/haproxy && cd /etc/haproxy && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test -keyout key.pem -out cert.pem 2>/dev/null && cat cert.pem key.pem > site.pem")
}

// The case of the origin: HAProxy with its admin socket and four listeners.
var _ = scenario("a-origin", func(t *testing.T, m *Machine) {
	m.site()
	s := m.haproxy("origin", binds("127.0.0.1:55555", "127.0.0.1:9000", "127.0.0.1:9443 ssl crt /etc/haproxy/site.pem", "127.0.0.1:9001 accept-proxy")).start()

	ports := []int{55555, 9000, 9443, 9001}
	before := s.inodesOf(ports)
	if len(before) != len(ports) {
		t.Fatalf("listening inodes %v", before)
	}
	s.fetches("/run/supervisor/origin/admin.sock", ports, before)
	for _, by := range []string{"systemctl", "SIGUSR2", "SIGHUP"} {
		old := s.answers("127.0.0.1:9000")
		clients := map[load.Class]int{load.New: 2, load.Keep: 1}
		handoff := func() { s.reloadBy(by, "127.0.0.1:9000", old) }
		s.underLoad("a origin, plain, "+by, tcp(9000), clients, func() {
			tls := tcp(9443)
			tls.TLS = true
			s.underLoad("a origin, TLS, "+by, tls, clients, handoff)
		})
		if after := s.inodesOf(ports); !slices.Equal(before, after) {
			t.Errorf("%s: listening inodes %v, before %v", by, after, before)
		}
		s.drained(1)
		if s.Alive(old) {
			t.Errorf("%s: old worker %d is alive", by, old)
		}
	}
	status := s.supervisor("status", "origin")
	if status.Code != 0 || strings.Count(status.Stdout, "drained: exit code 0") < 3 {
		t.Errorf("status does not tell what happened to the old workers (exit %d):\n%s%s", status.Code, status.Stdout, status.Stderr)
	}
})

// fetches checks what `supervisor fetch` tells of a HAProxy that listens on ports of 127.0.0.1, whose sockets have these
// inodes, and on its admin socket.
func (s *service) fetches(admin string, ports []int, inodes []uint64) {
	s.t.Helper()
	type socket struct {
		Network   string   `json:"network"`
		Address   string   `json:"address"`
		Listening bool     `json:"listening"`
		Inode     uint64   `json:"inode"`
		Flags     []string `json:"flags"`
	}
	type document struct {
		V       int      `json:"v"`
		Socket  string   `json:"socket"`
		Sockets []socket `json:"sockets"`
	}
	r := s.supervisor("fetch", admin, "--json")
	var got document
	if err := json.Unmarshal([]byte(r.Stdout), &got); err != nil || r.Code != 0 || r.Stderr != "" {
		s.t.Fatalf("supervisor fetch: exit %d, %v:\n%s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	want := document{V: 1, Socket: admin, Sockets: []socket{{Network: "unix", Address: admin, Listening: true, Flags: []string{"nonblock"}}}}
	for i, port := range ports {
		want.Sockets = append(want.Sockets, socket{"tcp", fmt.Sprintf("127.0.0.1:%d", port), true, inodes[i], []string{"reuseport", "nonblock"}})
	}
	byAddress := func(a, b socket) int { return strings.Compare(a.Address, b.Address) }
	slices.SortFunc(got.Sockets, byAddress)
	slices.SortFunc(want.Sockets, byAddress)
	for i := range got.Sockets {
		if got.Sockets[i].Network == "unix" {
			got.Sockets[i].Inode = 0 // which is not compared
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("supervisor fetch (-want +got):\n%s", diff)
	}
}

func (s *service) inodesOf(ports []int) []uint64 {
	s.t.Helper()
	var all []uint64
	for _, p := range ports {
		all = append(all, s.ListeningInodes(p)...)
	}
	return all
}

// reloadBy reloads by systemctl or a signal to the supervisor, and waits until another worker than old answers.
func (s *service) reloadBy(by, address string, old int) {
	s.t.Helper()
	switch by {
	case "SIGUSR2":
		s.Kill(s.MainPID(s.unit), syscall.SIGUSR2)
	case "SIGHUP":
		s.Kill(s.MainPID(s.unit), syscall.SIGHUP)
	default:
		s.reload()
	}
	s.Eventually(20*time.Second, func() string {
		if pid, text := s.Worker(address); pid == 0 || pid == old {
			return fmt.Sprintf("worker %d answers %s", pid, text)
		}
		return ""
	})
}

// A hundred reloads lose nothing, on new connections and on kept ones.
var _ = scenario("b-hundred-reloads", func(t *testing.T, m *Machine) {
	s := m.haproxy("hundred", binds("127.0.0.1:6100", "127.0.0.1:6101")).start()
	before := s.inodesOf([]int{6100, 6101})
	const reloads = 100
	result := s.underLoad("b 100 reloads", tcp(6100), map[load.Class]int{load.New: 2, load.Keep: 2, load.Late: 4}, func() {
		for range reloads {
			s.reload()
		}
	})
	if n := len(result.Workers()); n < reloads {
		t.Errorf("only %d workers answered over %d reloads", n, reloads)
	}
	if idle := result.IdleClosed(); idle > 0 {
		t.Errorf("%d kept connections were closed while idle, in spite of idle-close-on-response", idle)
	}
	if after := s.inodesOf([]int{6100, 6101}); !slices.Equal(before, after) {
		t.Errorf("listening inodes %v, before %v", after, before)
	}
	s.drained(1)
})

// A worker killed under load: what arrives meanwhile waits in the backlog.
var _ = scenario("d-worker-killed", func(t *testing.T, m *Machine) {
	s := m.haproxy("killed", binds("127.0.0.1:6200")).start()
	for range 5 {
		old := s.answers("127.0.0.1:6200")
		var killed time.Time
		result := m.whileLoaded(load.Options{Target: tcp(6200), Pause: 2 * time.Millisecond, Clients: map[load.Class]int{load.New: 2}}, func() {
			killed = time.Now()
			s.Kill(old, syscall.SIGKILL)
			s.Eventually(20*time.Second, func() string {
				if pid, text := s.Worker("127.0.0.1:6200"); pid == 0 || pid == old {
					return "no other worker answers: " + text
				}
				return ""
			})
			restart := s.handoffSince(killed)
			spawned := restart.Started.Sub(killed)
			for _, step := range restart.Steps {
				if spawned += time.Duration(step.Took); step.Name == "spawn" {
					break
				}
			}
			m.note(fmt.Sprintf("d worker killed: next one spawned after %s, answered after %s", spawned.Round(100*time.Microsecond), time.Since(killed).Round(time.Millisecond)))
		})
		m.report("d worker killed", result)
		// What the dead worker had accepted dies with it; nothing else may.
		c := result.Classes[load.New]
		if c.Kinds[load.Refused]+c.Kinds[load.Timeout]+c.Kinds[load.Wrong] > 0 || c.Kinds[load.Cut]+c.Kinds[load.Reset] > 2 {
			t.Errorf("worker killed:\n%s", result)
		}
	}
})
