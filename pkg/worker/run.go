package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

// keepOutput is how much of the end of a command's output is kept where the command does not say.
const keepOutput = 4096

// runs numbers the commands that this process has run.
var runs atomic.Uint64

// Run runs cmd to its end and returns the last whole lines (at most cmd.Keep) of its standard output and error, which
// take the place of descriptors 1 and 2. The error says how it ended if not with code 0, or wraps ctx's when that was
// first. Whatever processes it leaves behind are killed, daemons included: they are known by SUPERVISOR_COMMAND, which
// is added to the environment.
func Run(ctx context.Context, cmd Command) (output string, err error) {
	r, w, err := sys.Pipe()
	if err != nil {
		return "", fmt.Errorf("start %q: %w", cmd.Argv, err)
	}
	if err := sys.SetNonblock(r.Num(), true); err != nil { // of the reading end only
		r.Close()
		w.Close()
		return "", fmt.Errorf("start %q: %w", cmd.Argv, err)
	}
	from := r.File("output")
	defer from.Close()
	files := make([]int, max(3, len(cmd.Files)))
	files[0] = -1
	copy(files, cmd.Files)
	files[1], files[2] = w.Num(), w.Num()
	cmd.Files = files
	marker := fmt.Sprintf("SUPERVISOR_COMMAND=%d/%d", os.Getpid(), runs.Add(1))
	cmd.Env = append(slices.Clip(cmd.Env), marker)
	p, err := Start(cmd)
	w.Close()
	if err != nil {
		return "", err
	}
	defer p.Release()
	last := make(chan string, 1)
	go func() { last <- tail(from, cmp.Or(cmd.Keep, keepOutput)) }()
	err = finish(ctx, p, NewTree(p, marker))
	// What was written before the end is in the pipe already; a process that could not be killed may hold it open.
	from.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	return <-last, err
}

// finish waits for p and leaves nothing of its tree alive.
func finish(ctx context.Context, p *Process, tree *Tree) error {
	var err error
	select {
	case <-p.Done():
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	killAll(tree)
	select {
	case <-p.Done():
	case <-time.After(lastWait): // it hangs in the kernel, and nothing more can be done about it
		return errors.Join(err, errors.New("not even SIGKILL ended it"))
	}
	if exit := p.Exit(); err == nil && (!exit.Known || exit.Signal != 0 || exit.Code != 0) {
		err = errors.New(ExitString(exit))
	}
	return err
}

// killAll kills the members of tree, and again what they forked meanwhile, and waits for their end.
// It returns the number of processes that it could not end.
func killAll(tree *Tree) int {
	for range 50 {
		n, err := tree.Signal(syscall.SIGKILL)
		if n == 0 && err == nil {
			return 0
		}
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		tree.Wait(ctx)
		cancel()
	}
	pids, _ := tree.PIDs()
	return len(pids)
}

// tail reads f to its end or deadline and returns the last of it, so many bytes at most.
func tail(f *os.File, most int) string {
	var kept []byte
	cut := false
	buf := make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		kept = append(kept, buf[:n]...)
		if over := len(kept) - most; over > 0 {
			kept = kept[over:]
			cut = true
		}
		if err != nil {
			break
		}
	}
	s := strings.ToValidUTF8(string(kept), "?")
	if cut {
		if _, rest, ok := strings.Cut(s, "\n"); ok {
			s = rest
		}
	}
	return strings.TrimRight(s, "\n")
}
