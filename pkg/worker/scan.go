package worker

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

// foreignFor is how long a pid that was found to be nobody of ours is not looked at again.
const foreignFor = time.Second

// scan looks at every process once and returns the members that live.
func (t *Tree) scan() ([]member, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	table, err := t.readTable(now)
	if err != nil {
		return nil, err
	}
	if leader, ok := table[t.Session]; ok && t.main.start != 0 && leader.start != t.main.start {
		t.sessionOver = true
	}
	found := family{table: table, members: map[int]bool{}, byParent: map[int][]int{}}
	for pid, st := range table {
		found.byParent[st.ppid] = append(found.byParent[st.ppid], pid)
	}
	for pid, st := range table {
		if t.isSeed(st) {
			found.add(pid)
		}
	}
	unknown := map[int]bool{}
	for pid, st := range table {
		if found.members[pid] || st.start < t.main.start || !mayBelong(st) || st.dead() {
			continue
		}
		carries, executing, err := t.marked(pid)
		if err != nil {
			return nil, err
		}
		if carries {
			found.add(pid)
		}
		unknown[pid] = executing
	}
	t.update(found, unknown, now)
	return t.sorted(), nil
}

// readTable reads the stat of every process but those lately found foreign.
func (t *Tree) readTable(now time.Time) (map[int]stat, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	names, err := proc.Readdirnames(-1)
	proc.Close()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	table := map[int]stat{}
	buf := make([]byte, 0, 1024)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if seen, ok := t.foreign[pid]; ok && now.Sub(seen) < foreignFor {
			continue
		}
		st, err := readStat(pid, buf)
		if exhausted(err) {
			return nil, err
		}
		if err == nil {
			table[pid] = st
		}
	}
	return table, nil
}

// exhausted tells an error that says nothing about a process: an answer without it would be taken for whole.
func exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// update makes what was found the members, and remembers the rest as foreign, except for those that may be in the
// middle of an execve, whose environment is empty.
func (t *Tree) update(found family, unknown map[int]bool, now time.Time) {
	t.members = map[int]member{}
	foreign := map[int]time.Time{}
	for pid, seen := range t.foreign {
		if now.Sub(seen) < foreignFor {
			foreign[pid] = seen
		}
	}
	for pid, st := range found.table {
		switch {
		case found.members[pid] && !st.dead():
			t.members[pid] = member{pid, st.start}
			t.see(pid)
		case !found.members[pid] && !unknown[pid]:
			foreign[pid] = now
		}
	}
	t.foreign = foreign
}

// family grows from seeds by descent.
type family struct {
	table    map[int]stat
	byParent map[int][]int
	members  map[int]bool
}

func (f *family) add(pid int) {
	if f.members[pid] {
		return
	}
	f.members[pid] = true
	for _, child := range f.byParent[pid] {
		// A child is never older than its parent: otherwise the parent's pid has been reused since.
		if f.table[child].start >= f.table[pid].start {
			f.add(child)
		}
	}
}

// mayBelong excludes what is never part of a generation, whatever its session or environment say.
func mayBelong(st stat) bool {
	return st.pid > 1 && st.pid != os.Getpid() && !st.kernel
}

// isSeed tells a member by what is known already or by its session.
func (t *Tree) isSeed(st stat) bool {
	if !mayBelong(st) {
		return false
	}
	if m, ok := t.members[st.pid]; ok && m.start == st.start {
		return true
	}
	if t.main.pid == 0 {
		return false
	}
	return st.pid == t.main.pid && st.start == t.main.start ||
		!t.sessionOver && st.session == t.Session && st.start >= t.main.start
}

// marked reports whether the process pid carries the marker in the environment it was executed with. In the middle of
// an execve it has no environment for an instant.
func (t *Tree) marked(pid int) (carries, executing bool, err error) {
	if t.Marker == "" {
		return false, false, nil
	}
	env, err := sys.ReadProc("/proc/"+strconv.Itoa(pid)+"/environ", nil)
	if exhausted(err) {
		return false, false, err
	}
	if err != nil {
		return false, false, nil // it has ended, or is not for us to read
	}
	for entry := range bytes.SplitSeq(env, []byte{0}) {
		if string(entry) == t.Marker || strings.HasSuffix(t.Marker, "/") && bytes.HasPrefix(entry, []byte(t.Marker)) {
			return true, false, nil
		}
	}
	return false, len(env) == 0, nil
}
