package supervisor_test

import (
	"strings"
	"testing"
	"time"
)

// What status shows is when the next stage comes, and the log says what ended a drain: its time, or a limit.
func TestStagesOfADrain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, timeout string
		reloads       int
		says          string
	}{
		{"too long", "100ms", 1, "the drain took too long: sent SIGTERM to 1 process"},
		{"too many", "1h", 2, "the drain was cut short: sent SIGTERM to 1 process"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newService(t, "[handoff]\nmax_draining = 1\n[drain]\ndivert = \"none\"\ntimeout = \""+c.timeout+"\"\nescalate = [\"SIGTERM\", \"3h\", \"SIGKILL\"]\n")
			s.arguments("-ignore-term")
			s.start()
			for range c.reloads {
				if r, err := s.try(false); err != nil || !r.OK {
					t.Fatal(r, err)
				}
			}
			s.eventually(func() string {
				for _, g := range s.status().Generations {
					if g.N == 1 && g.State == "draining" && time.Until(g.Deadline) > 2*time.Hour {
						return ""
					}
				}
				return "the deadline is not that of the next stage"
			})
			if log := s.log(); !strings.Contains(log, c.says) {
				t.Errorf("the log does not say %q", c.says)
			}
			if c.timeout == "1h" && !strings.Contains(s.log(), "the oldest, 1, is ended") {
				t.Error("the log does not say which generation is ended")
			}
		})
	}
}
