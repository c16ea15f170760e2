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

// steps is the last handoff as one line: each step with its time.
func (s *service) steps() string {
	s.t.Helper()
	status := s.status()
	if len(status.Handoffs) == 0 {
		return "no handoff"
	}
	var b strings.Builder
	last := status.Handoffs[0]
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
