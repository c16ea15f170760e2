//go:build vm

package vm

import (
	"strconv"
	"syscall"
	"time"
)

// killSupervisor kills the main process and waits for the next one to be active.
func (s *service) killSupervisor() {
	s.t.Helper()
	old := s.MainPID(s.unit)
	s.Kill(old, syscall.SIGKILL)
	s.Eventually(20*time.Second, func() string {
		if pid := s.MainPID(s.unit); pid == 0 || pid == old {
			return "no new supervisor"
		}
		if state := s.Property(s.unit, "ActiveState"); state != "active" {
			return "the supervisor is " + state
		}
		return ""
	})
}

// TryKill sends a signal to a process that may be gone by now.
func (s *service) TryKill(pid int, sig syscall.Signal) {
	s.Try("kill", "-"+strconv.Itoa(int(sig)), strconv.Itoa(pid))
}
