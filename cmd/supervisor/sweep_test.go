package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/supervisor"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// leave starts a shell that a service of that name might have left behind, and returns once it runs script.
func leave(t *testing.T, service, script string) *worker.Process {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := worker.Start(worker.Command{
		Argv: []string{"/bin/sh", "-c", script + "; echo; while :; do sleep 60 & wait; done"},
		Env:  []string{handoff.MarkerOf(service, "test", 7), "PATH=/usr/bin:/bin"}, Dir: "/",
		Files: []int{-1, int(w.Fd()), -1},
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		tree := worker.NewTree(p, handoff.MarkerOf(service, "test", 7))
		tree.Signal(syscall.SIGKILL)
		<-p.Done()
		p.Release()
	})
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return p
}

func swept(t *testing.T, service string, grace time.Duration) (said []string, err error) {
	t.Helper()
	l := &supervisor.Leftovers{
		Tree: &worker.Tree{Marker: handoff.Marker(service, "test")},
		Said: func(pid int, sig syscall.Signal, comm string) {
			said = append(said, fmt.Sprintf("%d %v %s", pid, sig, comm))
		},
	}
	err = l.End(t.Context(), grace)
	return said, err
}

func TestSweepEndsWhatWasLeft(t *testing.T) {
	service := fmt.Sprintf("sweep%d", os.Getpid())
	polite := leave(t, service, "trap 'exit 0' TERM")
	other := leave(t, service+"x", ":")
	said, err := swept(t, service, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	<-polite.Done()
	if want := fmt.Sprintf("%d terminated sh", polite.PID()); !strings.Contains(strings.Join(said, "\n"), want) {
		t.Errorf("said %q, want %q", said, want)
	}
	select {
	case <-other.Done():
		t.Error("a process of another service was ended")
	default:
	}
	if said, err := swept(t, service, time.Second); err != nil || len(said) > 0 {
		t.Errorf("with nothing left: said %q, %v", said, err)
	}
}

func TestSweepKillsWhatDoesNotEnd(t *testing.T) {
	service := fmt.Sprintf("sweep%d", os.Getpid())
	stubborn := leave(t, service, "trap '' TERM")
	said, err := swept(t, service, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	<-stubborn.Done()
	if exit := stubborn.Exit(); exit.Signal != syscall.SIGKILL {
		t.Errorf("ended by %v", worker.ExitString(exit))
	}
	if text := strings.Join(said, "\n"); !strings.Contains(text, "terminated") || !strings.Contains(text, "killed") {
		t.Errorf("said %q", said)
	}
}

func TestSweepIsForSystemd(t *testing.T) {
	t.Setenv("SERVICE_RESULT", "")
	code, stdout, stderr := invoke("sweep", "web")
	if code != exitUsage || stdout != "" || !strings.Contains(stderr, "ExecStopPost=") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
}
