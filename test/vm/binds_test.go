//go:build vm

package vm

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/test/load"
)

// Binds that come and go.
var _ = scenario("e-binds-change", func(t *testing.T, m *Machine) {
	s := m.haproxy("change", binds("127.0.0.1:6300", "127.0.0.1:6301")).start()
	kept, removed := s.ListeningInodes(6300), s.ListeningInodes(6301)
	if len(kept) != 1 || len(removed) != 1 {
		t.Fatalf("listeners %v on 6300, %v on 6301", kept, removed)
	}
	both, problem := s.quieted(-1, 20*time.Second)
	if problem != "" {
		t.Fatal(problem)
	}
	s.storeHolds(append(kept, removed...), nil)
	quiet := func(entries int) {
		t.Helper()
		if _, problem := s.quieted(entries, 20*time.Second); problem != "" {
			t.Error(problem)
		}
	}
	s.underLoad("e bind removed, added", tcp(6300), map[load.Class]int{load.New: 2}, func() {
		s.haproxyConfig(binds("127.0.0.1:6300"))
		s.reload()
		quiet(both.stored - 1)
		if got := s.Get("127.0.0.1:6301", "/"); !strings.Contains(got, "refused") {
			t.Errorf("the port whose bind line was removed answers %q, want refused", got)
		}
		s.storeHolds(kept, removed)

		s.haproxyConfig(binds("127.0.0.1:6300", "127.0.0.1:6302"))
		s.reload()
		added := s.ListeningInodes(6302)
		s.storeHolds(append(kept, added...), removed)
		quiet(both.stored)
		s.reload()
		quiet(both.stored)
		if after := s.ListeningInodes(6302); len(added) != 1 || !slices.Equal(added, after) {
			t.Errorf("inodes of the added port %v, after the next reload %v", added, after)
		}
	})
})

// HAProxy does not list what it was given as "fd@N" when it is asked for its sockets: it is kept all the same, beside one
// that HAProxy binds by itself.
var _ = scenario("e-bind-fd", func(t *testing.T, m *Machine) {
	s := m.haproxy("bindfd", binds("fd@${FD}", "127.0.0.1:6361"))
	toml := replace(t, s.ReadFile(s.config()), `sockets = ["getsocks"]`, `sockets = ["getsocks", "argv"]`+"\nenvironment.FD = \"${fd:http}\"\ncheck_with_sockets = true")
	s.WriteFile(s.config(), toml+socketTable("http", "127.0.0.1:6360"))
	cursor := s.Cursor()
	s.start()
	ports := []int{6360, 6361}
	before := s.inodesOf(ports)
	s.underLoad("e bind fd@N", tcp(6360), map[load.Class]int{load.New: 2, load.Keep: 1}, func() {
		s.reload()
		s.reload()
	})
	s.drained(1)
	if after := s.inodesOf(ports); len(before) != 2 || !slices.Equal(before, after) {
		t.Errorf("listening inodes %v, before %v", after, before)
	}
	s.storeHolds(before, nil)
	if said := s.JournalAfter(s.unit, cursor); strings.Contains(said, "does not listen on it") {
		t.Errorf("the journal says what is not true:\n%s", said)
	}
})

// storeHolds checks that systemd's FD store has the sockets with the inodes of held, once each, and none of those that are
// in gone only. Before systemd 254 there is nothing but the number of all entries, which [service.quieted] compares.
func (s *service) storeHolds(held, gone []uint64) {
	s.t.Helper()
	if !s.FDStoreShown() {
		return
	}
	entries := map[uint64]int{}
	store := s.FDStore(s.unit)
	for _, entry := range store {
		entries[entry.Inode]++
	}
	for _, inode := range held {
		if entries[inode] != 1 {
			s.t.Errorf("%d entries of the FD store are socket %d, want 1: %+v", entries[inode], inode, store)
		}
	}
	for _, inode := range gone {
		if !slices.Contains(held, inode) && entries[inode] != 0 {
			s.t.Errorf("socket %d, which nobody listens on, is in the FD store: %+v", inode, store)
		}
	}
}

// The same port with other options is carried or replaced, and nothing is lost in either: load goes on during each change
// at every address that is served before it or after it.
var _ = scenario("e-bind-options", func(t *testing.T, m *Machine) {
	const (
		v4, v6 = "127.0.0.1:6310", "[::1]:6310"
		path   = "/run/options.sock"
		// HAProxy makes no more shards than it has threads.
		threads = "nbthread 2"
	)
	// HAProxy fills the rest of an abstract name with zeros.
	abstract := "@options" + strings.Repeat("\x00", 108-len("@options"))
	addresses := []string{v4, v6, path, abstract}
	s := m.haproxy("options", binds(v4), threads).start()
	first, problem := s.quieted(-1, 20*time.Second)
	if problem != "" {
		t.Fatal(problem)
	}
	// What systemd stores beside the sockets stays the same.
	others := first.stored - 1
	served, before := []string{v4}, s.ListeningInodes(6310)

	steps := []struct {
		what   string
		bind   []string
		serves []string
		// listeners is the number of sockets on the port, and carried says that they are those from before the reload.
		listeners int
		carried   bool
		// says is what the journal must tell.
		says []string
	}{
		{"backlog", []string{"127.0.0.1:6310 backlog 7"}, []string{v4}, 1, true, nil},
		{"unix and abns", []string{"127.0.0.1:6310", "abns@options", path}, []string{v4, path, abstract}, 1, true, nil},
		{"unix and abns again", []string{"127.0.0.1:6310", "abns@options", path}, []string{v4, path, abstract}, 1, true, nil},
		{"wildcard instead of address", []string{":6310"}, []string{v4}, 1, false, nil},
		{"interface", []string{":6310 interface lo"}, []string{v4}, 1, false, nil},
		{"interface again", []string{":6310 interface lo"}, []string{v4}, 1, true, nil},
		{"v6only", []string{"[::]:6310 v6only"}, []string{v6}, 1, false, nil},
		{"IPv6 address", []string{"[::1]:6310"}, []string{v6}, 1, false, nil},
		// As docs/operations.md says.
		{"IPv6 address again", []string{"[::1]:6310"}, []string{v6}, 1, false, []string{"did not take socket", "v6only", "1 new", "sockets dropped: 1"}},
		{"IPv6 address v6only", []string{"[::1]:6310 v6only"}, []string{v6}, 1, true, nil},
		{"v4v6", []string{"[::]:6310 v4v6"}, []string{v4, v6}, 1, false, nil},
		{"shards", []string{"127.0.0.1:6310 shards 2"}, []string{v4}, 2, false, nil},
		{"shards again", []string{"127.0.0.1:6310 shards 2"}, []string{v4}, 2, true, nil},
		{"one shard", []string{"127.0.0.1:6310"}, []string{v4}, 1, false, nil},
		{"defer-accept", []string{"127.0.0.1:6310 defer-accept"}, []string{v4}, 1, true, nil},
	}
	for _, step := range steps {
		t.Run(step.what, func(t *testing.T) {
			s := &service{Machine: m.With(t), name: s.name, unit: s.unit}
			runs := map[string]*load.Run{}
			for _, address := range addresses {
				if slices.Contains(served, address) || slices.Contains(step.serves, address) {
					runs[address] = s.Load(load.Options{Target: targetOf(address), Pause: 2 * time.Millisecond, Late: 50 * time.Millisecond,
						Timeout: 10 * time.Second, Clients: map[load.Class]int{load.New: 2, load.Late: 2}})
				}
			}
			for _, run := range runs {
				s.progress(run, 20)
			}
			var cursor string
			if len(step.says) > 0 {
				cursor = s.Cursor()
			}
			s.haproxyConfig(binds(step.bind...), threads)
			s.reload()
			v, problem := s.quieted(others+step.listeners+len(step.bind)-1, 20*time.Second)
			if problem != "" {
				t.Errorf("%s; sockets:\n%s", problem, s.Sh("ss -Htanp 'sport = :6310'; ss -Hxanp | grep -F options || true"))
			}
			for address, run := range runs {
				s.progress(run, 20)
				result := run.Stop()
				lost := result.Failures()
				if slices.Contains(served, address) && slices.Contains(step.serves, address) {
					s.report("e "+step.what+", "+strings.TrimRight(address, "\x00"), result)
				} else if lost -= refused(result); strings.HasPrefix(targetOf(address).Network, "unix") {
					lost -= min(cut(result), 4) // nothing keeps clients from a Unix socket until it is closed
				}
				if lost > 0 {
					t.Errorf("%q: %d requests were lost:\n%s", address, lost, result)
				}
			}
			worker := strconv.Itoa(v.serving().PID)
			for _, address := range addresses {
				const requests = 4
				want := map[string]int64{}
				if slices.Contains(step.serves, address) {
					want[worker] = requests
				}
				result := s.Load(load.Options{Target: targetOf(address), Timeout: 10 * time.Second, Clients: map[load.Class]int{load.New: 2}, Requests: requests}).Wait()
				if refused(result) != result.Requests()-want[worker] || !maps.Equal(result.Workers(), want) {
					t.Errorf("%q is answered by %v, want %v:\n%s", address, result.Workers(), want, result)
				}
			}
			after := s.ListeningInodes(6310)
			if len(after) != step.listeners || slices.Equal(before, after) != step.carried {
				t.Errorf("%d listeners %v, before %v, want %d, carried: %v", len(after), after, before, step.listeners, step.carried)
			}
			s.storeHolds(after, before)
			if len(step.says) > 0 {
				if said := s.JournalAfter(s.unit, cursor); !containsAll(said, step.says) {
					t.Errorf("the journal does not say %q:\n%s", step.says, said)
				}
			}
			served, before = step.serves, after
		})
	}
})

// targetOf is the target with an address, which is a path or an abstract name, or a host and a port.
func targetOf(address string) load.Target {
	if strings.HasPrefix(address, "/") || strings.HasPrefix(address, "@") {
		return load.Target{Network: "unix", Address: address}
	}
	return load.Target{Address: address}
}

// A worker that binds by itself and cannot be asked: its sockets are taken out of it, and come back by its own bind(2), or
// in LISTEN_FDS.
var _ = scenario("e-own-binds", func(t *testing.T, m *Machine) {
	for i, convention := range []string{"bind", "systemd"} {
		t.Run(convention, func(t *testing.T) {
			t.Parallel()
			m, port := m.With(t), 6340+10*i
			name := "own-" + convention
			toml := replace(t, goWorker(name, "\n[handoff]\nfetch = \"pidfd\"\n"), "[worker]", fmt.Sprintf("[worker]\nsockets = [%q]", convention))
			s := m.service(name, toml, "")
			s.arguments(fmt.Sprintf("-bind=tcp:127.0.0.1:%d", port), fmt.Sprintf("-bind=tcp:127.0.0.1:%d", port+1), fmt.Sprintf("-bind=udp:127.0.0.1:%d", port))
			s.start()
			if convention == "systemd" {
				s.arguments() // the next generations find them in LISTEN_FDS
			}
			inodes := func() []uint64 { return append(s.inodesOf([]int{port, port + 1}), s.BoundUDPInodes(port)...) }
			before := inodes()
			if len(before) != 3 {
				t.Fatalf("sockets %v, want 3", before)
			}
			same := func(when string) {
				if after := inodes(); !slices.Equal(before, after) {
					t.Errorf("%s: sockets %v, before %v", when, after, before)
				}
				for _, h := range s.fds() {
					if h.Origin != "fetched" || !h.Stored || !slices.Contains(before, h.Inode) {
						t.Errorf("%s: %+v is held", when, h)
					}
				}
			}
			clients := map[load.Class]int{load.New: 1, load.Late: 1}
			both := func(what string, do func()) {
				s.underLoad("e own binds, "+convention+", UDP, "+what, load.Target{Address: fmt.Sprintf("127.0.0.1:%d", port)}, map[load.Class]int{load.UDP: 1}, func() {
					s.underLoad("e own binds, "+convention+", "+what, tcp(port+1), clients, do)
				})
			}
			same("start")
			both("3 reloads", func() {
				for range 3 {
					old, begin := s.answers(tcp(port).Address), time.Now()
					s.reload()
					s.replaced(old, begin)
				}
			})
			s.drained(1)
			same("reload")
			result := s.whileLoaded(load.Options{Target: tcp(port), Clients: clients, Pause: 2 * time.Millisecond}, func() {
				old, begin := s.answers(tcp(port).Address), time.Now()
				s.Kill(old, syscall.SIGKILL)
				s.replaced(old, begin)
			})
			s.report("e own binds, "+convention+", worker killed", result)
			if lost := result.Failures() - cut(result); lost > 0 || cut(result) > 2 {
				t.Errorf("worker killed:\n%s", result)
			}
			same("kill")
			both("restart", s.restart)
			s.drained(1)
			same("restart")
		})
	}
})

// A listener in another network namespace is carried, in that namespace.
var _ = scenario("e-bind-namespace", func(t *testing.T, m *Machine) {
	if !strings.Contains(m.Run("haproxy", "-vv"), "+NS") {
		t.Fatal("this HAProxy knows no namespaces")
	}
	m.Sh("ip netns add other && ip -n other link set lo up")
	t.Cleanup(func() { m.Sh("ip netns del other") })
	s := m.haproxy("namespace", binds("127.0.0.1:6330", "127.0.0.1:6331 namespace other")).start()
	// Two columns of "ss -e" tell the socket: its address and its inode.
	listener := func() string {
		return m.Sh("ip netns exec other ss -Htlne 'sport = :6331' | grep -o '127.0.0.1:6331\\|ino:[0-9]*'")
	}
	ask := func() int {
		text := m.Sh("ip netns exec other curl -sS -m 30 http://127.0.0.1:6331/")
		pid, _ := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(text), "pid="))
		return pid
	}
	before, old := listener(), ask()
	if strings.Count(before, "ino:") != 1 || old == 0 || len(m.ListeningInodes(6331)) > 0 {
		t.Fatalf("listeners in the namespace: %q, answered by %d; outside: %v", before, old, m.ListeningInodes(6331))
	}
	s.underLoad("e bind in a namespace", tcp(6330), map[load.Class]int{load.New: 2}, func() {
		for range 2 {
			s.reload()
			s.drained(1)
			if after := listener(); after != before {
				t.Errorf("listeners in the namespace: %q, before %q", after, before)
			}
			pid := ask()
			if pid == old || pid != s.answers("127.0.0.1:6330") {
				t.Errorf("worker %d answers in the namespace, before %d, outside %d", pid, old, s.answers("127.0.0.1:6330"))
			}
			old = pid
		}
	})
	worker := old
	s.killSupervisor()
	s.reload()
	s.drained(1)
	if after := listener(); after != before || ask() == worker {
		t.Errorf("after a kill of the supervisor and a reload: listeners %q, before %q", after, before)
	}
})

// A link-local address names its interface, which the kernel shows by its number.
var _ = scenario("e-link-local", func(t *testing.T, m *Machine) {
	m.Sh("ip link add local0 type veth peer name local1 && ip link set local0 up && ip link set local1 up && ip -6 addr add fe80::77/64 dev local0 nodad")
	t.Cleanup(func() { m.Sh("ip link del local0") })
	s := m.service("local", goWorker("local", socketTable("http", "[fe80::77%local0]:6340")), "")
	s.arguments()
	s.start()
	ask := func() string { return m.Sh("curl -sS -g -m 30 'http://[fe80::77%25local0]:6340/'") }
	before, inodes := ask(), m.ListeningInodes(6340)
	for range 2 {
		s.reload()
		s.drained(1)
		after := ask()
		if after == before || !strings.Contains(after, "pid=") {
			t.Errorf("%q answers, before %q", after, before)
		}
		if now := m.ListeningInodes(6340); !slices.Equal(now, inodes) {
			t.Errorf("inodes %v, before %v", now, inodes)
		}
		before = after
	}
})

// With divert = "steer" a HAProxy that dies after it was ready takes nothing with it: it got no connection yet.
var _ = scenario("e-steered", func(t *testing.T, m *Machine) {
	s := m.haproxy("steered", binds("127.0.0.1:6350", "127.0.0.1:6351"))
	config := replace(t, s.ReadFile(s.config()), `divert = "auto"`, `divert = "steer"`)
	config = replace(t, config, "[ready]\n", "[ready]\nstable = \"2s\"\n")
	good := replace(t, config, `stable = "2s"`, `stable = "1ms"`)
	command := `command = ["/usr/sbin/haproxy", "-db", "-f", "/etc/haproxy/steered.cfg", "-x", "sockpair@${getsocks_fd}"]`
	dies := replace(t, config, command, `command = ["/bin/sh", "-c", """
/usr/sbin/haproxy -db -f /etc/haproxy/steered.cfg -x sockpair@${getsocks_fd} & p=$!
until echo show info | socat - UNIX:/run/supervisor/steered/admin.sock | grep -qx "Pid: $p"; do sleep 0.02; done
sleep 0.2; kill -9 $p; exit 7"""]`)
	s.WriteFile(s.config(), good)
	s.start()
	ports := []int{6350, 6351}
	before := s.inodesOf(ports)
	if len(before) != 2*len(ports) {
		t.Fatalf("listeners %v, want pairs", before)
	}
	s.underLoad("e steered", tcp(6350), map[load.Class]int{load.New: 2, load.Late: 4, load.Keep: 1}, func() {
		for range 5 {
			s.reload()
			s.drained(1)
			s.WriteFile(s.config(), dies)
			s.reloadFails("was ready, but not for", "exit code 7")
			s.drained(1)
			s.WriteFile(s.config(), good)
		}
		s.killSupervisor()
		s.reload()
		s.drained(1)
	})
	if after := s.inodesOf(ports); !slices.Equal(before, after) {
		t.Errorf("listeners %v, before %v", after, before)
	}
	for _, g := range s.status().Generations {
		if strings.Contains(g.Exit, "drained") && g.Divert != "steer" {
			t.Errorf("generation %d was drained with %q", g.N, g.Divert)
		}
	}
})

// quicService is a HAProxy whose QUIC listeners can be tested here.
func (m *Machine) quicService(name string, lines ...string) *service {
	m.t.Helper()
	if !strings.Contains(m.Run("haproxy", "-vv"), "USE_QUIC=1") || !strings.Contains(m.Run("curl", "-V"), "HTTP3") {
		if m.Suite != "bookworm" {
			m.t.Fatal("this HAProxy or this curl has no QUIC")
		}
		m.note("e QUIC listener: NOT TESTED, this HAProxy or this curl has no QUIC")
		m.t.Skip("this HAProxy or this curl has no QUIC")
	}
	m.site()
	s := m.haproxy(name, binds(lines...), "limited-quic")
	// A handshake that lasts longer than settle is lost, and this machine may be a busy one.
	config := replace(m.t, s.ReadFile(s.config()), `settle = "100ms"`, `settle = "3s"`)
	s.WriteFile(s.config(), replace(m.t, config, "[ready]\n", "[ready]\nstable = \"500ms\"\n"))
	return s
}

// A QUIC listener is a UDP socket, which HAProxy hands out without names. No connection that begins during a reload is lost,
// though curl begins one with two datagrams: both must reach the same generation, while two of them serve.
var _ = scenario("e-quic", func(t *testing.T, m *Machine) {
	const quic = "quic4@127.0.0.1:6320 ssl crt /etc/haproxy/site.pem alpn h3"
	s := m.quicService("quic", "127.0.0.1:6320")
	s.start()
	s.haproxyConfig(binds("127.0.0.1:6320", quic), "limited-quic")
	s.reload()
	s.drained(1)
	before := s.BoundUDPInodes(6320)
	if len(before) != 2 {
		t.Fatalf("UDP sockets %v on 6320, want a pair", before)
	}
	s.underLoad("e QUIC listener", tcp(6320), map[load.Class]int{load.New: 2}, func() {
		stop := s.quicLoad("127.0.0.1:6320")
		for reload := range 4 {
			if reload == 2 {
				s.killSupervisor()
			}
			s.reload()
			s.drained(1)
			if after := s.BoundUDPInodes(6320); !slices.Equal(before, after) {
				t.Errorf("UDP inodes %v, before %v", after, before)
			}
			if r := s.quic("127.0.0.1:6320"); r.Stdout != fmt.Sprintf("pid=%d\n", s.answers("127.0.0.1:6320")) {
				t.Errorf("over QUIC: %q, %s", r.Stdout, r.Stderr)
			}
		}
		stop()
		for _, g := range s.status().Generations {
			if g.State == "gone" && g.N > 1 && g.Divert != "steer" {
				t.Errorf("QUIC is not steered away from generation %d: divert %q", g.N, g.Divert)
			}
		}
		s.haproxyConfig(binds("127.0.0.1:6320"))
		s.reload()
		s.drained(1)
		if left := s.BoundUDPInodes(6320); len(left) > 0 {
			t.Errorf("UDP sockets %v are left after the bind line was removed", left)
		}
		const refused = 7
		if r := s.quic("127.0.0.1:6320"); r.Code != refused || r.Took > quicTimeout/2 {
			t.Errorf("over QUIC after the bind line was removed: exit %d after %s: %q, %s", r.Code, r.Took, r.Stdout, r.Stderr)
		}
	})
})

// A QUIC listener that each HAProxy binds anew, as its options differ from those of the one that is held: that of the old
// generation gets nothing any more, and both share no connection.
var _ = scenario("e-quic-replaced", func(t *testing.T, m *Machine) {
	for name, user := range map[string]string{"sockets of one owner": "", "sockets of two owners": "user haproxy"} {
		t.Run(name, func(t *testing.T) {
			m := m.With(t)
			s := m.quicService("anew", "127.0.0.1:6325", "quic6@[::1]:6325 ssl crt /etc/haproxy/site.pem alpn h3")
			s.haproxyConfig(binds("127.0.0.1:6325", "quic6@[::1]:6325 ssl crt /etc/haproxy/site.pem alpn h3"), "limited-quic", user)
			s.start()
			stop := s.quicLoad("[::1]:6325")
			for range 3 {
				before := s.BoundUDPInodes(6325)
				s.reload()
				s.drained(1)
				if after := s.BoundUDPInodes(6325); len(after) == 0 || slices.Contains(before, after[0]) {
					t.Errorf("UDP sockets %v, before %v: none was bound anew", after, before)
				}
			}
			stop()
			s.Systemctl("stop", s.unit)
		})
	}
})

// quicTimeout is long enough for any answer, and for some packets to be sent again.
const quicTimeout = 10 * time.Second

func quicCurl(address string) string { return "curl --http3-only -ksS -m 10 https://" + address + "/" }

// quic asks once over QUIC, on a connection of its own.
func (s *service) quic(address string) Result {
	s.t.Helper()
	return s.Try(strings.Fields(quicCurl(address))...)
}

// quicLoad asks over QUIC, in two loops that end with the returned function, which demands that none failed.
func (s *service) quicLoad(address string) (stop func()) {
	s.t.Helper()
	const log, end = "/run/quic.log", "/run/quic.end"
	s.Remove(log, end)
	loop := s.Start("sh", "-c", `for client in 1 2; do
    for request in $(seq 10000); do
        [ -e `+end+` ] && break
        answer=$(`+quicCurl(address)+` 2>&1) && echo "ok $answer" || echo "failed $? $answer"
    done &
done >`+log+`
wait`)
	progress := func(n int) {
		s.t.Helper()
		s.Eventually(30*time.Second, func() string {
			if !s.Exists(log) || strings.Count(s.ReadFile(log), "\n") < n {
				return fmt.Sprintf("less than %d requests over QUIC", n)
			}
			return ""
		})
	}
	progress(10)
	return func() {
		s.t.Helper()
		progress(strings.Count(s.ReadFile(log), "\n") + 10)
		s.WriteFile(end, "")
		if r := <-loop; r.Code != 0 {
			s.t.Errorf("the load over QUIC: exit %d: %s", r.Code, r.Stderr)
		}
		answers := s.ReadFile(log)
		requests, failed := strings.Count(answers, "\n"), strings.Count(answers, "failed ")
		s.note(fmt.Sprintf("%-36s %8d requests %4d failed", "e QUIC, new connections", requests, failed))
		if failed > 0 {
			s.t.Errorf("%d of %d requests over QUIC failed: %q", failed, requests, regexp.MustCompile("(?m)^failed.*").FindAllString(answers, -1))
		}
	}
}
