//go:build vm

package vm

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/8265a91a/supervisor/internal/control"
)

// status asks the supervisor.
func (s *service) status() control.Status {
	s.t.Helper()
	r := s.supervisor("status", s.name, "--json")
	var status control.Status
	if err := json.Unmarshal([]byte(r.Stdout), &status); err != nil || r.Code != 0 {
		s.t.Fatalf("supervisor status: exit %d, %v: %s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	return status
}

// handoffSince waits for the record of a handoff that began after begin. The worker answers a moment before its
// supervisor knows that it is ready, and systemctl restart returns when the worker is adopted, before it is replaced.
func (s *service) handoffSince(begin time.Time) (last control.Trace) {
	s.t.Helper()
	s.Eventually(20*time.Second, func() string {
		status, err := s.ask()
		if err != nil {
			return err.Error()
		}
		if len(status.Handoffs) == 0 || status.Handoffs[0].Started.Before(begin) {
			return fmt.Sprintf("no handoff on record that began after %s: %+v", begin, status.Handoffs)
		}
		last = status.Handoffs[0]
		return ""
	})
	return last
}

// restart restarts the unit and waits until another worker serves than before.
func (s *service) restart() {
	s.t.Helper()
	old, begin := s.view().serving().PID, time.Now()
	s.Systemctl("restart", s.unit)
	s.replaced(old, begin)
}

// replaced waits for the handoff that began after begin, and for it to have put another worker in the place of old.
func (s *service) replaced(old int, begin time.Time) control.Trace {
	s.t.Helper()
	last := s.handoffSince(begin)
	if now := s.view().serving().PID; !last.OK || now == old || now == 0 {
		s.t.Errorf("worker %d serves, before %d; the handoff: %+v", now, old, last)
	}
	return last
}

// fds asks for the held sockets.
func (s *service) fds() []control.Held {
	s.t.Helper()
	r := s.supervisor("fds", s.name, "--json")
	var fds control.FDs
	if err := json.Unmarshal([]byte(r.Stdout), &fds); err != nil || r.Code != 0 {
		s.t.Fatalf("supervisor fds: exit %d, %v: %s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	return fds.Sockets
}

// steps is a handoff as one line: each step with its time.
func steps(last control.Trace) string {
	var b strings.Builder
	for _, step := range last.Steps {
		fmt.Fprintf(&b, "%s %s, ", step.Name, time.Duration(step.Took).Round(100*time.Microsecond))
	}
	fmt.Fprintf(&b, "all %s", time.Duration(last.Took).Round(100*time.Microsecond))
	return b.String()
}

// usage is what a supervisor must not use more and more of.
type usage struct {
	descriptors, stored, processes int
	rss                            int // KiB
}

func (s *service) usage() usage {
	s.t.Helper()
	pid := s.MainPID(s.unit)
	u := usage{stored: s.FDStoreSize(s.unit), processes: len(s.PIDs(s.unit))}
	u.descriptors = strings.Count(s.Run("ls", fmt.Sprintf("/proc/%d/fd", pid)), "\n") + 1
	for line := range strings.Lines(s.ReadFile(fmt.Sprintf("/proc/%d/status", pid))) {
		if strings.HasPrefix(line, "VmRSS:") {
			_, err := fmt.Sscanf(line, "VmRSS: %d kB", &u.rss)
			if err != nil {
				s.t.Fatal(err)
			}
		}
	}
	return u
}
