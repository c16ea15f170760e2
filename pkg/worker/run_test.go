package worker_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/worker"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestRun(t *testing.T) {
	for _, tt := range []struct{ verbs, output, err string }{
		{"say=fine exit=0", "fine", ""},
		{"say=one say=two exit=3", "one\ntwo", "exit code 3"},
		{"kill", "", "killed by SIGKILL"},
		{"daemonise sleep", "", ""}, // the pipe stays open in a process that is killed
	} {
		output, err := worker.Run(t.Context(), command(tt.verbs, "A=b"))
		if got := strings.TrimSpace(output); got != tt.output && !strings.HasPrefix(got, "up ") {
			t.Errorf("%s: output %q, want %q", tt.verbs, output, tt.output)
		}
		if (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("%s: %v, want %q", tt.verbs, err, tt.err)
		}
	}
	if _, err := worker.Run(t.Context(), worker.Command{Argv: []string{"/no/such"}}); err == nil || !strings.HasPrefix(err.Error(), "start /no/such: ") {
		t.Error(err)
	}
	worker.ReapOrphans()
}

func TestRunKeepsTheLastLines(t *testing.T) {
	output, err := worker.Run(t.Context(), command("flood exit=1", "A=b"))
	if err == nil {
		t.Error("no error")
	}
	if len(output) > 4096 || !strings.HasPrefix(output, "line ") || !strings.HasSuffix(output, "\nline 4999") {
		t.Errorf("%d bytes, from %.20q to %q", len(output), output, output[len(output)-20:])
	}
}

func TestRunEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	marker := "SUPERVISOR_GENERATION=" + t.Name() + "/1"
	_, err := worker.Run(ctx, command("ignore fork fork sleep", marker))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	left := &worker.Tree{Marker: marker}
	if got := pids(t, left); len(got) > 0 {
		t.Errorf("left behind: %v", got)
	}
	worker.ReapOrphans()
}

func TestRunPassesDescriptors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	memfd, err := sys.SealedMemfd("test", []byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	defer memfd.Close()
	cmd := worker.Command{Argv: []string{"/bin/cat", "/proc/self/fd/5"}, Files: []int{0, 1, 2, -1, -1, memfd.Num()}}
	if output, err := worker.Run(t.Context(), cmd); output != "content" || err != nil {
		t.Errorf("%q, %v", output, err)
	}
	cmd = worker.Command{Argv: []string{"/bin/readlink", "/proc/self/fd/0", "/proc/self/fd/3"}, Files: []int{-1, -1, -1, -1}}
	if output, err := worker.Run(t.Context(), cmd); output != "/dev/null\n/dev/null" || err != nil {
		t.Errorf("%q, %v", output, err)
	}
	cmd = worker.Command{Argv: []string{"/bin/readlink", "/proc/self/fd/" + itoa(memfd.Num())}}
	if output, err := worker.Run(t.Context(), cmd); err == nil {
		t.Errorf("a descriptor that was not given was inherited: %q", output)
	}
}
