//go:build fault

package supervisor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func (s *service) faultFile() string { return filepath.Join(s.dir, "fault") }

// faulty makes a service whose daemon does what the fault file says.
func faulty(t *testing.T, order string) *service {
	s := newService(t, "[handoff]\norder = \""+order+"\"\n[drain]\nsettle = \"10ms\"\ntimeout = \"5s\"\nidle = \"1ms\"\n")
	s.env = []string{"SUPERVISOR_FAULT_FILE=" + s.faultFile()}
	return s
}

// points returns what a reload passes, from its start to the end of the old generation: "NAME#N" for the N-th time.
func (s *service) points() (points []string) {
	s.t.Helper()
	seen := s.faultFile() + ".seen"
	if err := os.WriteFile(seen, nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.reload()
	data, err := os.ReadFile(seen)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.Remove(seen); err != nil {
		s.t.Fatal(err)
	}
	times := map[string]int{}
	for name := range strings.Lines(string(data)) {
		name = strings.TrimSpace(name)
		times[name]++
		points = append(points, fmt.Sprintf("%s#%d", name, times[name]))
	}
	return points
}

// during arms a fault and reloads. It returns when the reload and its drain have ended or the daemon has, and reports
// whether the point was reached.
func (s *service) during(point, action string) bool {
	s.t.Helper()
	if err := os.WriteFile(s.faultFile(), []byte(point+": "+action+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.try(true)
	}()
	select {
	case <-done:
	case <-time.After(limit):
		s.t.Fatalf("%s: the reload hangs", point)
	}
	err := os.Remove(s.faultFile())
	return os.IsNotExist(err)
}

var orders = []string{"start-first", "signal-first"}

// The supervisor is killed at every point of a handoff: the next one finds its way, and no client notices.
func TestKillSupervisorEverywhere(t *testing.T) {
	t.Parallel()
	for _, order := range orders {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			s := faulty(t, order)
			s.start()
			load := s.load()
			s.settled()
			points := s.points()
			if len(points) < 20 {
				t.Errorf("only %d points: %v", len(points), points)
			}
			for _, point := range points {
				reached := s.during(point, "kill")
				select {
				case <-s.daemon.Done():
				case <-time.After(limit / 10):
					if reached {
						t.Fatalf("%s: the daemon lives", point)
					}
					t.Logf("%s was not reached again", point)
					continue
				}
				s.ended()
				s.start()
				s.settled()
				s.reload()
				s.settled()
				if t.Failed() {
					t.Fatalf("at %s", point)
				}
			}
			load.end()
			s.stop()
		})
	}
}

// The old worker is killed at every point of its replacement.
func TestKillOldWorkerEverywhere(t *testing.T) {
	t.Parallel()
	killWorker(t, func(_ *service, pid, _ int) string { return fmt.Sprintf("exec kill -9 %d", pid) })
}

// The new worker is killed at every point of its start.
func TestKillNewWorkerEverywhere(t *testing.T) {
	t.Parallel()
	killWorker(t, func(s *service, _, generation int) string {
		return fmt.Sprintf("exec grep -lzs '^SUPERVISOR_GENERATION=%s/%d$' /proc/[0-9]*/environ | cut -d/ -f3 | xargs -r kill -9", s.name, generation+1)
	})
}

func killWorker(t *testing.T, action func(s *service, pid, generation int) string) {
	for _, order := range orders {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			s := faulty(t, order)
			s.start()
			load := s.load()
			s.settled()
			seen := map[string]bool{}
			for _, point := range s.points() {
				name, _, _ := strings.Cut(point, "#")
				if seen[name] {
					continue
				}
				seen[name] = true
				pid, generation := s.settled()
				if !s.during(name, action(s, pid, generation)) {
					t.Logf("%s was not reached again", point)
					continue
				}
				s.settled()
				s.reload()
				s.settled()
				if t.Failed() {
					t.Fatalf("at %s", name)
				}
			}
			load.end("reset", "cut") // what a worker had accepted died with it
			s.stop()
		})
	}
}

// Both generations die at once at the worst moment.
func TestKillBothWorkers(t *testing.T) {
	t.Parallel()
	s := faulty(t, "start-first")
	s.start()
	load := s.load()
	for _, point := range []string{"after ready", "after switch", "before divert", "before signal"} {
		pid, generation := s.settled()
		s.during(point, fmt.Sprintf("exec kill -9 %d $(grep -lzs '^SUPERVISOR_GENERATION=%s/%d$' /proc/[0-9]*/environ | cut -d/ -f3)", pid, s.name, generation+1))
		s.eventually(func() string {
			if st := s.status(); st.State != "serving" {
				return "the service is " + st.State
			}
			return ""
		})
		s.settled()
		s.reload()
	}
	load.end("reset", "cut")
	s.stop()
}

// More is asked of the supervisor while a step takes its time.
func TestSlowPoints(t *testing.T) {
	t.Parallel()
	s := faulty(t, "start-first")
	s.start()
	load := s.load()
	s.settled()
	for _, point := range []string{"begun", "spawned", "after switch", "state removed"} {
		if err := os.WriteFile(s.faultFile(), []byte(point+": delay 200ms\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.signal(syscall.SIGHUP)
		s.reload()
		s.settled()
	}
	load.end()
	s.stop()
}
