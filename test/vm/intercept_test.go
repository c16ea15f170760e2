//go:build vm

package vm

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/test/load"
)

// The supervisor is killed while a worker starts that gets its socket by its own bind(2), and binds when there is no
// supervisor: the next one answers, and ends the handoff.
var _ = scenario("s-b-bind", func(t *testing.T, m *Machine) {
	const name, port = "sbb", 7120
	const hold, wait = "/run/" + name + ".hold", "/run/" + name + ".wait"
	address := fmt.Sprintf("127.0.0.1:%d", port)
	s := m.service(name, fmt.Sprintf(`
[worker]
sockets = ["bind"]
command = ["/usr/bin/worker", "-generation", "${generation}", "-bind=tcp:%s", "-args", "/etc/supervisor/%s.args"]

[ready]
timeout = "20s"

[drain]
settle = "20ms"

[[socket]]
name   = "http"
listen = %[1]q
`, address, name), fmt.Sprintf("[Service]\nExecStartPre=/bin/sh -c 'while test -e %s; do sleep 0.02; done'\nRestartSec=10ms\n", hold))
	t.Cleanup(func() { m.Remove(hold, wait) })
	s.arguments()
	s.start()
	inodes, stored := m.ListeningInodes(port), m.FDStoreSize(s.unit)
	s.underLoad("b supervisor killed, worker binds", tcp(port), map[load.Class]int{load.New: 2, load.Late: 1, load.Keep: 1}, func() {
		old := s.answers(address)
		m.WriteFile(wait, "")
		s.arguments("-start-while=" + wait)
		reloading := m.Start("systemctl", "reload", s.unit)
		s.Eventually(20*time.Second, func() string { // its pidfd, its notify socket, and what answers its bind(2)
			if n := m.FDStoreSize(s.unit); n != stored+3 {
				return fmt.Sprintf("%d entries in the FD store, %d before the reload", n, stored)
			}
			return ""
		})
		m.WriteFile(hold, "")
		supervisor := m.MainPID(s.unit)
		s.Kill(supervisor, syscall.SIGKILL)
		s.Eventually(20*time.Second, func() string {
			if m.Alive(supervisor) {
				return "the supervisor lives"
			}
			return ""
		})
		m.Remove(wait)
		newcomer := 0
		s.Eventually(20*time.Second, func() string {
			for _, pid := range s.PIDs(s.unit) {
				inBind := fmt.Sprintf("grep -qs '^%d ' /proc/%d/task/*/syscall", syscall.SYS_BIND, pid)
				if pid != old && m.Try("sh", "-c", inBind).Code == 0 {
					newcomer = pid
					return ""
				}
			}
			return "nobody is in bind(2)"
		})
		<-reloading // its client has gone with the supervisor
		m.Remove(hold)
		s.Eventually(20*time.Second, func() string {
			if pid, text := s.Worker(address); pid != newcomer {
				return fmt.Sprintf("worker %d answers, not %d: %s", pid, newcomer, text)
			}
			return ""
		})
		s.drained(1)
		s.reload()
		s.drained(1)
	})
	if after := m.ListeningInodes(port); len(inodes) == 0 || !slices.Equal(inodes, after) {
		t.Errorf("listening inodes %v, before %v", after, inodes)
	}
	s.Eventually(10*time.Second, func() string {
		if n := m.FDStoreSize(s.unit); n != stored {
			return fmt.Sprintf("%d entries in the FD store, before %d", n, stored)
		}
		return ""
	})
})
