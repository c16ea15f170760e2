//go:build fault

package supervisor_test

import (
	"strings"
	"testing"
)

// Wherever the supervisor dies about the drain signal, the old worker gets it: nothing else ends this one.
func TestDrainSignalIsNotLost(t *testing.T) {
	t.Parallel()
	for how, drain := range map[string]string{
		"signal":  "signal = \"SIGUSR1\"\n",
		"command": "command = [\"/bin/sh\", \"-c\", \"kill -USR1 $1\", \"sh\", \"${pid}\"]\n",
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := faulty(t, "start-first")
			s.configure("[drain]\nsettle = \"10ms\"\ntimeout = \"1h\"\nescalate = [\"SIGKILL\"]\n" + drain)
			s.start()
			s.settled()
			for _, point := range []string{"before signal", "signalling", "signalled", "after signal"} {
				if !s.during(point, "kill") {
					t.Fatalf("%s was not reached", point)
				}
				s.ended()
				s.start()
				s.settled()
				if g := s.status().Generations[1]; strings.Contains(g.Exit, "escalation") {
					t.Errorf("%s: %+v", point, g)
				}
			}
			s.stop()
		})
	}
}
