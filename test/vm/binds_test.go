//go:build vm

package vm

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/test/load"
)

// Binds that come and go.
var _ = scenario("e-binds-change", func(t *testing.T, m *Machine) {
	s := m.haproxy("change", binds("127.0.0.1:6300", "127.0.0.1:6301")).start()
	if n := len(s.ListeningInodes(6301)); n != 1 {
		t.Fatalf("%d listeners on 6301", n)
	}
	s.underLoad("e bind removed, added", tcp(6300), map[load.Class]int{load.New: 2}, func() {
		s.haproxyConfig(binds("127.0.0.1:6300"))
		s.reload()
		s.drained(1)
		if got := s.Get("127.0.0.1:6301", "/"); !strings.Contains(got, "refused") {
			t.Errorf("the port whose bind line was removed answers %q, want refused", got)
		}
		s.storeHolds("6300", 1)
		s.storeHolds("6301", 0)

		s.haproxyConfig(binds("127.0.0.1:6300", "127.0.0.1:6302"))
		s.reload()
		s.storeHolds("6302", 1)
		added := s.ListeningInodes(6302)
		s.reload()
		s.drained(1)
		if after := s.ListeningInodes(6302); len(added) != 1 || !slices.Equal(added, after) {
			t.Errorf("inodes of the added port %v, after the next reload %v", added, after)
		}
	})
})

// storeHolds checks how many listeners on a port are in systemd's FD store, by inode where it can be asked.
func (s *service) storeHolds(port string, want int) {
	s.t.Helper()
	if !s.FDStoreShown() {
		return
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		s.t.Fatal(err)
	}
	// A port that nobody listens on any more has no inode to look for, so its name is looked for as well.
	held := 0
	inodes := s.ListeningInodes(number)
	store := s.FDStore(s.unit)
	for _, entry := range store {
		if slices.Contains(inodes, entry.Inode) {
			held++
		}
	}
	if held != want || want == 0 && len(inodes) > 0 {
		s.t.Errorf("%d listeners of port %s in the store, want %d (listening: %v): %+v", held, port, want, inodes, store)
	}
}

// The same port with other options is carried or cleanly replaced: never a port on which clients hang.
var _ = scenario("e-bind-options", func(t *testing.T, m *Machine) {
	s := m.haproxy("options", binds("127.0.0.1:6310")).start()
	steps := []struct {
		what    string
		bind    []string
		address string
	}{
		{"backlog", []string{"127.0.0.1:6310 backlog 7"}, "127.0.0.1:6310"},
		{"wildcard instead of address", []string{":6310"}, "127.0.0.1:6310"},
		{"interface", []string{":6310 interface lo"}, "127.0.0.1:6310"},
		{"interface again", []string{":6310 interface lo"}, "127.0.0.1:6310"},
		{"v6only", []string{"[::]:6310 v6only"}, "[::1]:6310"},
		{"v4v6", []string{"[::]:6310 v4v6"}, "127.0.0.1:6310"},
		{"shards", []string{"127.0.0.1:6310 shards 2"}, "127.0.0.1:6310"},
		{"shards again", []string{"127.0.0.1:6310 shards 2"}, "127.0.0.1:6310"},
		{"one shard", []string{"127.0.0.1:6310"}, "127.0.0.1:6310"},
		{"defer-accept", []string{"127.0.0.1:6310 defer-accept"}, "127.0.0.1:6310"},
		{"unix", []string{"127.0.0.1:6310", "/run/options.sock"}, "127.0.0.1:6310"},
		{"abns", []string{"127.0.0.1:6310", "abns@options", "/run/options.sock"}, "127.0.0.1:6310"},
		{"unix and abns again", []string{"127.0.0.1:6310", "abns@options", "/run/options.sock"}, "127.0.0.1:6310"},
	}
	for _, step := range steps {
		t.Run(step.what, func(t *testing.T) {
			s := &service{Machine: m.With(t), name: s.name, unit: s.unit}
			s.haproxyConfig(binds(step.bind...))
			s.reload()
			s.drained(1)
			targets := []load.Target{{Address: step.address}}
			if len(step.bind) > 1 {
				targets = append(targets, load.Target{Network: "unix", Address: "/run/options.sock"})
			}
			for _, target := range targets {
				result := m.whileLoaded(load.Options{Target: target, Timeout: 10 * time.Second, Clients: map[load.Class]int{load.New: 4}}, func() {})
				if result.Failures() > 0 {
					t.Errorf("after the reload:\n%s", result)
				}
			}
		})
	}
})

// A listener in another network namespace is carried, in that namespace.
var _ = scenario("e-bind-namespace", func(t *testing.T, m *Machine) {
	if !strings.Contains(m.Run("haproxy", "-vv"), "+NS") {
		t.Skip("this HAProxy knows no namespaces")
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

// A QUIC listener is a UDP socket, which HAProxy hands out without names.
var _ = scenario("e-quic", func(t *testing.T, m *Machine) {
	if !strings.Contains(m.Run("haproxy", "-vv"), "USE_QUIC=1") {
		t.Skip("this HAProxy has no QUIC")
	}
	m.site()
	s := m.haproxy("quic", binds("127.0.0.1:6320"))
	config := func(lines ...string) {
		s.haproxyConfig(binds(lines...))
		path := "/etc/haproxy/quic.cfg"
		s.WriteFile(path, replace(t, s.ReadFile(path), "global\n", "global\n    limited-quic\n"))
	}
	quic := "quic4@127.0.0.1:6320 ssl crt /etc/haproxy/site.pem alpn h3"
	config("127.0.0.1:6320", quic)
	s.start()
	before := s.BoundUDPInodes(6320)
	if len(before) == 0 {
		t.Fatal("no UDP socket on 6320")
	}
	s.underLoad("e QUIC listener", tcp(6320), map[load.Class]int{load.New: 2}, func() {
		for range 2 {
			s.reload()
			s.drained(1)
			if after := s.BoundUDPInodes(6320); !slices.Equal(before, after) {
				t.Errorf("UDP inodes %v, before %v", after, before)
			}
		}
		config("127.0.0.1:6320")
		s.reload()
		s.drained(1)
		if left := s.BoundUDPInodes(6320); len(left) > 0 {
			t.Errorf("UDP sockets %v are left after the bind line was removed", left)
		}
	})
})
