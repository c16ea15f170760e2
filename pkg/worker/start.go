package worker

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/8265a91a/supervisor/internal/sys"
)

// FD is the owning descriptor type: whoever holds one closes it.
type FD = sys.FD

// Command says what to start.
type Command struct {
	// Argv is the program's absolute path and its arguments.
	Argv []string
	// Env is the whole environment: nothing is inherited. Of a variable given twice the last holds.
	Env []string
	// Dir is the working directory; empty means the caller's own.
	Dir string
	// Files are borrowed descriptors: Files[i] becomes descriptor i of the child. -1, and any of the first three
	// that is missing, is /dev/null. Nothing else is inherited.
	Files []int
	// Keep is how much of the end of its output [Run] returns; default 4 KiB.
	Keep int
}

// Start spawns cmd in a session of its own and watches it. A program that cannot be executed is an error that says
// why; no process is left behind then. The caller calls [Process.Release] in the end.
func Start(cmd Command) (*Process, error) {
	if len(cmd.Argv) == 0 || !strings.Contains(cmd.Argv[0], "/") {
		return nil, fmt.Errorf("start %q: the command must begin with the path of a program", cmd.Argv)
	}
	null, err := sys.OpenNull()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Argv[0], err)
	}
	defer null.Close()
	files := make([]uintptr, max(3, len(cmd.Files)))
	for i := range files {
		files[i] = uintptr(null.Num())
		if i < len(cmd.Files) && cmd.Files[i] >= 0 {
			files[i] = uintptr(cmd.Files[i])
		}
	}
	children.spawning.RLock()
	defer children.spawning.RUnlock()
	pidfd := -1
	pid, err := syscall.ForkExec(cmd.Argv[0], cmd.Argv, &syscall.ProcAttr{
		Dir: cmd.Dir, Env: lastOfEach(cmd.Env), Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	})
	if err != nil {
		return nil, startError(cmd, err)
	}
	p, err := startedProcess(pid, pidfd)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Argv[0], err)
	}
	return p, nil
}

// lastOfEach leaves out the variables that are given again later: getenv(3) finds the first.
func lastOfEach(env []string) []string {
	seen := make(map[string]bool, len(env))
	kept := make([]string, 0, len(env))
	for _, kv := range slices.Backward(env) {
		if key, _, _ := strings.Cut(kv, "="); !seen[key] {
			seen[key] = true
			kept = append(kept, kv)
		}
	}
	slices.Reverse(kept)
	return kept
}

// startedProcess takes ownership of pidfd, and ends the child if it cannot be watched.
func startedProcess(pid, pidfd int) (*Process, error) {
	err := errors.New("the kernel gave no pidfd")
	if pidfd >= 0 {
		var p *Process
		if p, err = watch(sys.NewFD(pidfd), pid); err == nil {
			return p, nil
		}
	}
	return nil, errors.Join(err, sys.EndChild(pid))
}

// startError finds the words for an errno that may be about the program, its interpreter or the directory.
func startError(cmd Command, err error) error {
	if cmd.Dir != "" {
		if _, dirErr := os.ReadDir(cmd.Dir); dirErr != nil {
			return fmt.Errorf("start %s: change to its directory: %w", cmd.Argv[0], dirErr)
		}
	}
	if st, statErr := os.Stat(cmd.Argv[0]); errors.Is(err, syscall.ENOENT) && statErr == nil && st.Mode().IsRegular() {
		return fmt.Errorf("start %s: the program exists, but the interpreter or loader that it names does not: %w", cmd.Argv[0], err)
	}
	return fmt.Errorf("start %s: %w", cmd.Argv[0], err)
}
