package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

// Tree is every process of a generation: the main process and its descendants, what belongs to its session, and what
// carries the generation's marker in its environment, so that orphans and daemons are found as well. Once seen, a
// process stays a member until it ends. What escapes is a process that was orphaned, began a session of its own and
// replaced its environment, all between two scans; and under another user id, unless this process may read its environment.
//
// A Tree without a main process (a literal with Marker set) finds members by the marker alone.
// Its methods may be called from several goroutines.
type Tree struct {
	// Session is the id of the main process's session, 0 for none.
	Session int
	// Marker is an entry KEY=VALUE of the environment. One that ends in "/" stands for all that begin with it.
	Marker string

	mu   sync.Mutex
	main member
	// sessionOver says that the session's number was seen on a process that is not its old leader.
	sessionOver bool
	members     map[int]member
	// seen are the pids of all members so far, at most mostSeen.
	seen map[int]bool
	// foreign is when a pid was last found to be nobody of ours. It is not read again for a moment: pids are not
	// reused that fast, and readiness is polled every few milliseconds.
	foreign map[int]time.Time
}

// member identifies a process: pids are reused, pairs of pid and start time are not.
type member struct {
	pid   int
	start uint64
}

// NewTree returns the tree of the generation whose main process is p, which need not live any more, and whose
// processes were given marker, an entry KEY=VALUE, in their environment.
func NewTree(p *Process, marker string) *Tree {
	return &Tree{Session: p.pid, Marker: marker, main: member{p.pid, p.start}, seen: map[int]bool{p.pid: true}}
}

// PIDs returns the members that live, in ascending order. It costs one pass over /proc.
func (t *Tree) PIDs() ([]int, error) {
	live, err := t.scan()
	if err != nil {
		return nil, err
	}
	pids := make([]int, len(live))
	for i, m := range live {
		pids[i] = m.pid
	}
	return pids, nil
}

// mostSeen bounds what is remembered of a server that forks for every request.
const mostSeen = 200

// Seen returns the pids of the members that live and of those that earlier calls of any method came across, in ascending
// order: whoever may have written something.
func (t *Tree) Seen() []int {
	_, _ = t.scan() // without /proc those of earlier calls must do
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.seen))
}

// see runs with mu held.
func (t *Tree) see(pid int) {
	if t.seen == nil { // a literal
		t.seen = map[int]bool{}
	}
	if len(t.seen) < mostSeen {
		t.seen[pid] = true
	}
}

// Eldest returns a pidfd of the member that was started first, which the caller closes; os.ErrProcessDone if none lives.
// Of those started within one tick (10 ms) it is the one with the lowest pid.
func (t *Tree) Eldest() (*sys.FD, error) {
	live, err := t.scan()
	if err != nil {
		return nil, err
	}
	if len(live) == 0 {
		return nil, os.ErrProcessDone
	}
	return slices.MinFunc(live, func(a, b member) int { return cmp.Or(cmp.Compare(a.start, b.start), a.pid-b.pid) }).open()
}

// Empty reports whether no member lives; false when /proc cannot be read.
func (t *Tree) Empty() bool {
	live, err := t.scan()
	return err == nil && len(live) == 0
}

// Contains reports whether pid is a member that lives or was not reaped yet. It looks at that process and its
// ancestors only.
func (t *Tree) Contains(pid int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	first, err := readStat(pid, nil)
	if err != nil || !mayBelong(first) || !t.descends(first) && !t.carries(first) {
		return false
	}
	if !first.dead() {
		t.remember(first)
	}
	return true
}

// descends reports whether st is a seed or has one among its ancestors.
func (t *Tree) descends(st stat) bool {
	for mayBelong(st) {
		if t.isSeed(st) {
			return true
		}
		parent, err := readStat(st.ppid, nil)
		if err != nil || parent.start > st.start {
			return false
		}
		st = parent
	}
	return false
}

func (t *Tree) carries(st stat) bool {
	carries, _, err := t.marked(st.pid)
	return carries && err == nil
}

// Signal sends sig to every member and returns the number of processes it reached. Members that are forked while it
// runs may be missed: repeat until Empty.
func (t *Tree) Signal(sig syscall.Signal) (int, error) {
	live, err := t.scan()
	if err != nil {
		return 0, err
	}
	n := 0
	var errs []error
	for _, m := range live {
		fd, err := m.open()
		if err == nil {
			err = sys.PidfdSignal(fd.Num(), sig)
			fd.Close()
		}
		switch {
		case err == nil:
			n++
		case !errors.Is(err, os.ErrProcessDone):
			errs = append(errs, fmt.Errorf("signal process %d: %w", m.pid, err))
		}
	}
	return n, errors.Join(errs...)
}

// Wait returns nil once no member lives, or ctx's error. It sleeps until members end and never polls.
func (t *Tree) Wait(ctx context.Context) error {
	for {
		live, err := t.scan()
		if err != nil || len(live) == 0 {
			return err
		}
		for _, m := range live {
			if err := m.wait(ctx); err != nil {
				return err
			}
		}
	}
}

// open returns a pidfd that is certainly the member's; os.ErrProcessDone when it is gone. The caller closes it.
func (m member) open() (*sys.FD, error) {
	fd, err := sys.PidfdOpen(m.pid)
	if errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EINVAL) { // EINVAL: the pid is a thread's by now
		return nil, os.ErrProcessDone
	}
	if err != nil {
		return nil, err
	}
	if st, err := readStat(m.pid, nil); err != nil || st.start != m.start {
		fd.Close()
		return nil, os.ErrProcessDone
	}
	return fd, nil
}

func (m member) wait(ctx context.Context) error {
	fd, err := m.open()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	f := fd.File("pidfd")
	defer f.Close()
	defer context.AfterFunc(ctx, func() { f.Close() })()
	err = sys.WaitExit(f)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (t *Tree) remember(st stat) {
	if t.members == nil {
		t.members = map[int]member{}
	}
	t.members[st.pid] = member{st.pid, st.start}
	t.see(st.pid)
	delete(t.foreign, st.pid)
}

func (t *Tree) sorted() []member {
	return slices.SortedFunc(maps.Values(t.members), func(a, b member) int { return a.pid - b.pid })
}
