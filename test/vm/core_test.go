//go:build vm

package vm

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/test/load"
)

// The promises in short, also for the virtual machine: reloads, a killed worker, a killed supervisor, a restart.
var _ = scenario("core", func(t *testing.T, m *Machine) {
	s := m.haproxy("core", binds("127.0.0.1:6900", "127.0.0.1:6901")).start()
	inodes := s.inodesOf([]int{6900, 6901})
	s.underLoad("core, three reloads", tcp(6900), map[load.Class]int{load.New: 1, load.Late: 1, load.Keep: 1}, func() {
		for range 3 {
			old := s.answers("127.0.0.1:6900")
			s.reload()
			s.drained(1)
			if s.answers("127.0.0.1:6900") == old {
				t.Errorf("worker %d still answers after the reload", old)
			}
		}
	})
	worker := s.answers("127.0.0.1:6900")
	s.underLoad("core, supervisor killed", tcp(6900), map[load.Class]int{load.New: 1, load.Late: 1, load.Keep: 1}, func() {
		s.killSupervisor()
		if pid := s.answers("127.0.0.1:6900"); pid != worker {
			t.Errorf("worker %d answers after a kill of the supervisor, before %d", pid, worker)
		}
	})
	result := m.whileLoaded(load.Options{Target: tcp(6900), Pause: 2 * time.Millisecond, Clients: map[load.Class]int{load.New: 1, load.Late: 1}}, func() {
		s.Kill(worker, syscall.SIGKILL)
		s.Eventually(20*time.Second, func() string {
			if pid, text := s.Worker("127.0.0.1:6900"); pid == 0 || pid == worker {
				return "no other worker answers: " + text
			}
			return ""
		})
	})
	m.report("core, worker killed", result)
	if lost := result.Failures() - cut(result); lost > 0 || cut(result) > 2 {
		t.Errorf("worker killed:\n%s", result)
	}
	s.underLoad("core, restart and reload", tcp(6900), map[load.Class]int{load.New: 1, load.Late: 1}, func() {
		m.Systemctl("restart", s.unit)
		s.reload()
	})
	s.drained(1)
	if after := s.inodesOf([]int{6900, 6901}); !slices.Equal(inodes, after) {
		t.Errorf("listening inodes %v, before %v", after, inodes)
	}
})
