package supervisor_test

import (
	"fmt"
	"strings"
	"testing"
)

// A service that cannot start is tried again by systemd without a limit: the first failure is reported at once, later
// starts pause, whether the worker or the configuration is broken, and a good start ends that.
func TestPauseAfterFailedStarts(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	fails := func(count int, what string) {
		t.Helper()
		s.launch()
		if exit := s.ended(); exit.Code != 1 {
			t.Fatalf("%s: the daemon ended with %+v", what, exit)
		}
		for n := 1; n <= count+1; n++ {
			said := strings.Contains(s.log(), fmt.Sprintf("failed_starts=%d ", n))
			if said != (n <= count) {
				t.Errorf("%s: pause after %d failures: %v", what, n, said)
			}
		}
	}
	s.arguments("-exit", "3")
	fails(0, "first start")
	fails(1, "worker still broken")
	s.configure("!nonsense = 1\n")
	fails(2, "configuration broken")
	s.configure("")
	s.launch()
	s.eventually(func() string {
		if !strings.Contains(s.log(), "failed_starts=3 ") {
			return "no pause"
		}
		return ""
	})
	s.stop() // is obeyed, and in order
	s.configure("")
	s.arguments()
	s.start()
	s.stop()
	s.manager.Stop()
	s.start()
	if strings.Contains(s.log(), "failed_starts=4 ") {
		t.Error("paused after a good start")
	}
	s.stop()
}
