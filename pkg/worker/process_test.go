package worker_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/worker"
)

func TestExitStatus(t *testing.T) {
	for _, tt := range []struct {
		verbs string
		want  sys.Exit
		words string
	}{
		{"exit=0", sys.Exit{Known: true}, "exit code 0"},
		{"exit=3", sys.Exit{Known: true, Code: 3}, "exit code 3"},
		{"kill", sys.Exit{Known: true, Signal: syscall.SIGKILL}, "killed by SIGKILL"},
	} {
		p := start(t, tt.verbs)
		got := ended(t, p.Process)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.verbs, diff)
		}
		if words := worker.ExitString(got); words != tt.words {
			t.Errorf("%s: %q, want %q", tt.verbs, words, tt.words)
		}
		if err := p.Signal(0); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("signal to an ended process: %v", err)
		}
	}
}

func TestStartFails(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		cmd  worker.Command
		want string
		is   error
	}{
		{worker.Command{Argv: []string{"/no/such/program"}}, "start /no/such/program: no such file or directory", syscall.ENOENT},
		{worker.Command{Argv: []string{script}}, "interpreter", syscall.ENOENT},
		{worker.Command{Argv: []string{plain}}, "permission denied", syscall.EACCES},
		{worker.Command{Argv: []string{"/bin/true"}, Dir: "/no/such/dir"}, "change to its directory", syscall.ENOENT},
		{worker.Command{Argv: []string{"true"}}, "path of a program", nil},
		{worker.Command{}, "path of a program", nil},
	} {
		_, err := worker.Start(tt.cmd)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.cmd.Argv, err, tt.want)
		}
		if tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%v: %v is not %v", tt.cmd.Argv, err, tt.is)
		}
	}
}

func TestAdopt(t *testing.T) {
	p := start(t, "sleep")
	p.up(t, 1)
	dup, err := sys.DupNum(p.Pidfd())
	if err != nil {
		t.Fatal(err)
	}
	again, err := sys.DupNum(p.Pidfd())
	if err != nil {
		t.Fatal(err)
	}
	p.Release() // as if the first supervisor were gone
	p.Release()
	a, err := worker.Adopt(dup)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Release()
	if a.PID() != p.PID() || a.StartTime() != p.StartTime() {
		t.Errorf("adopted %d/%d, want %d/%d", a.PID(), a.StartTime(), p.PID(), p.StartTime())
	}
	if err := a.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sys.Exit{Known: true, Signal: syscall.SIGKILL}, ended(t, a)); diff != "" {
		t.Error(diff)
	}
	if _, err := worker.Adopt(again); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("adopting a reaped process: %v", err)
	}
}

// A process that somebody else reaps, or does not reap at all, is seen to end all the same.
func TestAdoptSomebodyElsesChild(t *testing.T) {
	for _, verbs := range []string{"fork until", "forkwait until"} {
		p := start(t, verbs)
		pidfd, err := sys.PidfdOpen(p.up(t, 1))
		if err != nil {
			t.Fatal(err)
		}
		a, err := worker.Adopt(pidfd)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Release()
		if err := a.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		// Newer kernels tell the status of a stranger (6.15 once it was reaped).
		if got := ended(t, a); got != (sys.Exit{}) && got != (sys.Exit{Known: true}) {
			t.Errorf("%s: %+v", verbs, got)
		}
	}
}

func TestAdoptNoPidfd(t *testing.T) {
	fd, err := sys.OpenNull()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := worker.Adopt(fd); err == nil {
		t.Error("adopted /dev/null")
	}
	if fd.Num() != -1 {
		t.Error("the descriptor was not closed")
	}
}

func TestReleaseLeavesTheProcessAlone(t *testing.T) {
	p := start(t, "sleep")
	pid := p.up(t, 1)
	p.Release()
	if !p.tree.Contains(pid) {
		t.Error("the process did not survive Release")
	}
	select {
	case <-p.Done():
		t.Error("Done is closed")
	default:
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		p, err := worker.Start(worker.Command{Argv: []string{"/bin/true"}})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		<-p.Done()
		p.Release()
		b.StartTimer()
	}
}

func BenchmarkKillUntilDone(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		p, err := worker.Start(worker.Command{Argv: []string{"/bin/sleep", "60"}})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		p.Signal(syscall.SIGKILL)
		<-p.Done()
		b.StopTimer()
		p.Release()
		b.StartTimer()
	}
}
