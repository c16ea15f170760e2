package supervisor_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/8265a91a/supervisor/pkg/worker"
)

// A second supervisor of a running service ends at once, and harms nobody.
func TestSecondSupervisor(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	load := s.load()
	pid, _ := s.settled()
	out, err := worker.Run(s.ctx(), worker.Command{
		Argv: []string{s.binary, daemonCommand, s.name, s.configFile(), s.runtime()},
		Env:  []string{"PATH=" + os.Getenv("PATH"), raceOptions}, Files: []int{-1, -1, -1},
	})
	if err == nil || !strings.Contains(string(out), "another supervisor runs") {
		t.Errorf("the second supervisor: %v, %s", err, out)
	}
	if now, _ := s.settled(); now != pid {
		t.Errorf("worker %d became %d", pid, now)
	}
	s.reload()
	s.settled()
	load.end()
	s.stop()
}

// A service of the same name with another runtime directory is another service: neither its start, nor its drains, nor
// its stop touch the workers of the first.
func TestSameNameElsewhere(t *testing.T) {
	t.Parallel()
	first, second := newService(t, ""), newService(t, "")
	second.name = first.name
	second.configure("")
	first.start()
	load := first.load()
	pid, _ := first.serving()
	second.start()
	second.reload()
	second.kill()
	second.start()
	second.stop()
	if now, n := first.serving(); now != pid || n != 1 {
		t.Errorf("worker %d became %d, generation %d", pid, now, n)
	}
	first.reload()
	load.end()
	first.stop()
}

// The identity comes from the state when the runtime directory is lost, and from the runtime directory when the state
// is lost: the workers' children are known by it.
func TestIdentitySurvives(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	pid, _ := s.settled()
	path := filepath.Join(s.runtime(), "identity")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	same := func() {
		t.Helper()
		after, err := os.ReadFile(path)
		if err != nil || string(after) != string(before) {
			t.Errorf("identity %q became %q, %v", before, after, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		if now, _ := s.serving(); now != pid {
			t.Errorf("worker %d became %d", pid, now)
		}
	}
	s.kill()
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	s.start()
	same()
	s.kill()
	for _, e := range s.manager.Entries() {
		if strings.HasPrefix(e.Name, "supervisor.state") {
			s.store().Remove(e.Name)
		}
	}
	s.start()
	same()
	s.stop()
}

// A process that carries the name and the number, but not the identity, is nobody's.
func TestGuessedMarker(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	s.settled()
	stranger, err := worker.Start(worker.Command{
		Argv: []string{"/bin/sleep", "1000"}, Env: []string{"SUPERVISOR_GENERATION=" + s.name + "/1", "PATH=/bin"}, Files: []int{-1, -1, -1},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		stranger.Signal(syscall.SIGKILL)
		<-stranger.Done()
		stranger.Release()
	}()
	s.reload()
	s.kill()
	s.start()
	s.reload()
	s.stop()
	select {
	case <-stranger.Done():
		t.Error("the stranger was ended")
	default:
	}
}
