package supervisor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// left has a client wait in the queue of a worker that does not accept it and is then killed while the next serves.
func (s *service) left() (answered chan error) {
	s.t.Helper()
	pid, _ := s.settled()
	s.halt(pid)
	s.eventually(func() string { // the last of its threads may still accept
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(tasks) == 0 {
			s.t.Fatal("no threads: ", err)
		}
		for _, task := range tasks {
			if data, err := os.ReadFile(task); err == nil && !strings.Contains(string(data), ") T ") {
				return "it runs"
			}
		}
		return ""
	})
	answered = make(chan error, 1)
	go func() {
		_, err := ask(s.addr)
		answered <- err
	}()
	s.eventually(func() string {
		c := s.dial()
		defer c.Close()
		f, err := c.FDs(s.ctx())
		if err != nil || f.Sockets[0].BacklogUsed == 0 {
			return fmt.Sprint("nobody waits ", err)
		}
		return ""
	})
	if r, err := s.try(false); err != nil || !r.OK {
		s.t.Fatal(r, err)
	}
	return answered
}

// What a dead worker left behind is served by one more generation, with the configuration in force: that on disk may
// be half written.
func TestRescue(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	pid, _ := s.settled()
	answered := s.left()
	if err := os.WriteFile(s.configFile(), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(pid, syscall.SIGKILL)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if _, n := s.settled(); n != 3 {
		t.Errorf("generation %d serves", n)
	}
	if n := len(s.warnings("left connections waiting")); n != 1 {
		t.Errorf("%d warnings: %q", n, s.warnings())
	}
	s.stop()
}

// A replacement that fails is not tried without end: the pauses grow, and a reload ends them.
func TestRescueFails(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	pid, _ := s.settled()
	answered := s.left()
	s.arguments("-exit=3")
	syscall.Kill(pid, syscall.SIGKILL)
	for _, pause := range []string{"100ms", "200ms", "400ms", "800ms"} {
		s.eventually(func() string {
			if len(s.warnings("is replaced in "+pause)) == 0 {
				return "no pause of " + pause
			}
			return ""
		})
	}
	s.arguments()
	s.reload()
	if err := <-answered; err != nil {
		t.Error(err)
	}
	s.settled()
	s.stop()
}

// A worker that asks to be replaced as soon as it serves is replaced with growing pauses.
func TestTriggerWithoutEnd(t *testing.T) {
	t.Parallel()
	s := newService(t, fmt.Sprintf("[worker]\nwatchdog = \"1h\"\ncommand = [%q, \"-args\", %q]\n", workerProgram, "/dev/null"))
	s.start()
	for i, pause := range []string{"", "100ms", "200ms", "400ms"} {
		_, n := s.settled()
		s.say(n, "WATCHDOG=trigger\fWATCHDOG=trigger")
		if pause != "" && len(s.warnings("is replaced in "+pause)) != 1 {
			t.Errorf("replacement %d: %q", i, s.warnings("replaced in"))
		}
		s.replaced(n)
	}
	s.settled()
	s.stop()
}
