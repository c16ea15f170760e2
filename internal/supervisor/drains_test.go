package supervisor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// drainCommand is a worker that ignores signals and is drained by a command, which writes the placeholder's value to
// a file.
func (s *service) drainCommand(placeholder string) string {
	return fmt.Sprintf("[drain]\nsettle = \"20ms\"\ntimeout = \"20s\"\ncommand = [\"/bin/sh\", \"-c\", \"echo $1 > %s; kill -9 $2\", \"sh\", %q, \"${pid}\"]\nsuccess = [\"SIGKILL\"]\n",
		s.said(), placeholder)
}

func (s *service) said() string { return filepath.Join(s.dir, "said") }

// A drain command may name sockets, whatever becomes of them while the worker serves.
func TestDrainCommand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		unit bool
		do   func(s *service)
	}{
		{"reload", false, func(s *service) { s.reload() }},
		{"address changes", false, func(s *service) {
			s.addr = strings.Replace(s.addr, ":8080", ":8081", 1)
			s.configure(s.drainCommand("${port:http}"))
			s.reload()
		}},
		{"adopted", false, func(s *service) {
			s.kill()
			s.start()
			s.reload()
		}},
		{"stop", true, (*service).stop},
		{"adopted and stopped", true, func(s *service) {
			s.kill()
			s.start()
			s.stop()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, "")
			extra := ""
			if c.unit {
				extra = unitOnly
				s.passed("http")
			}
			s.arguments("-ignore-term")
			s.configure(s.drainCommand("${port:http}") + extra)
			s.start()
			c.do(s)
			if said, err := os.ReadFile(s.said()); string(said) != "8080\n" {
				t.Errorf("the command said %q, %v", said, err)
			}
			if w := s.warnings("drain.command"); len(w) > 0 {
				t.Errorf("warnings: %q", w)
			}
			if left := s.processes(); c.unit == (len(left) > 0) {
				t.Errorf("processes: %v", left)
			}
		})
	}
}

// A name that no socket has fails the reload, before anything depends on it.
func TestDrainCommandUnknownName(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	pid, _ := s.settled()
	worker := fmt.Sprintf("[worker]\ncommand = [%q]\n", workerProgram)
	for key, config := range map[string]string{
		"drain.command":    s.drainCommand("${port:nobody}"),
		"worker.pid_file":  worker + "pid_file = \"${dir}/${port:nobody}\"\npid_link = \"${runtime}/pid\"\n",
		"handoff.getsocks": "[handoff]\ngetsocks = \"${path:nobody}\"\n",
	} {
		s.configure(config)
		message := s.reloadFails()
		for _, w := range []string{"check failed", key, `unknown socket "nobody"`, "keeps serving"} {
			if !strings.Contains(message, w) {
				t.Errorf("%s: %q does not say %q", key, message, w)
			}
		}
	}
	if now, _ := s.settled(); now != pid {
		t.Errorf("pid %d became %d", pid, now)
	}
}

// A command that cannot be made after all does not keep the worker from its end.
func TestDrainCommandLost(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.configure(s.drainCommand("${port:http}"))
	s.start()
	s.settled()
	s.kill()
	s.edit(func(st map[string]any) {
		for sum, text := range st["configs"].(map[string]any) {
			st["configs"].(map[string]any)[sum] = strings.ReplaceAll(text.(string), "${port:http}", "${port:nobody}")
		}
	})
	s.start()
	s.reload()
	s.settled()
	if g := s.status().Generations[1]; !strings.Contains(g.Exit, "exit code 0") || strings.Contains(g.Exit, "escalation") {
		t.Errorf("the old worker: %+v", g)
	}
	if len(s.warnings("drain.command", "nobody", "SIGTERM")) != 1 {
		t.Errorf("warnings: %q", s.warnings())
	}
}
