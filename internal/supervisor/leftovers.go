package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/internal/text"
	"github.com/8265a91a/supervisor/internal/unit"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// LeftoverGrace is how long a left-over may take to end, after SIGTERM and again after SIGKILL.
const LeftoverGrace = 5 * time.Second

// Leftovers are the processes of a service that no supervisor knows any more: those of this unit's control group, and
// those of Tree.
type Leftovers struct {
	Tree *worker.Tree
	// Spare, unless nil, tells of a process that is no left-over.
	Spare func(pid int) bool
	// Said is told of each process that was sent a signal.
	Said func(pid int, sig syscall.Signal, comm string)
}

// End ends them all, without more grace when patience ends.
func (l *Leftovers) End(patience context.Context, grace time.Duration) error {
	var left []int
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if sig == syscall.SIGKILL {
			patience = context.Background()
		}
		ctx, cancel := context.WithTimeout(patience, grace)
		var err error
		left, err = l.signal(ctx, sig)
		cancel()
		if err != nil {
			return err
		}
		if len(left) == 0 {
			return nil
		}
	}
	return fmt.Errorf("processes %s do not end, even by SIGKILL", strings.Trim(fmt.Sprint(left), "[]"))
}

// signal sends sig once to every process that is left, also to those that appear meanwhile, and returns those that
// have not ended when ctx ends.
func (l *Leftovers) signal(ctx context.Context, sig syscall.Signal) ([]int, error) {
	sent := map[int]bool{}
	for {
		left, err := l.find()
		if err != nil || len(left) == 0 || ctx.Err() != nil {
			return left, err
		}
		var waiting []*os.File
		for _, pid := range left {
			if f := l.signalOne(pid, sig, sent); f != nil {
				waiting = append(waiting, f)
			}
		}
		closeAll := func() {
			for _, f := range waiting {
				f.Close()
			}
		}
		stop := context.AfterFunc(ctx, closeAll)
		for _, f := range waiting {
			_ = sys.WaitExit(f) // its error is that of ctx
		}
		stop()
		closeAll()
	}
}

// signalOne sends sig unless that was done, and returns a pidfd to wait for, which the caller closes; nil if the
// process has ended meanwhile.
func (l *Leftovers) signalOne(pid int, sig syscall.Signal, sent map[int]bool) *os.File {
	fd, err := sys.PidfdOpen(pid)
	if err != nil {
		return nil
	}
	// From here on the pid cannot be given to another process unnoticed.
	if !unit.Contains(pid) && !l.Tree.Contains(pid) {
		fd.Close()
		return nil
	}
	if !sent[pid] {
		sent[pid] = true
		comm, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
		if sys.PidfdSignal(fd.Num(), sig) == nil {
			l.Said(pid, sig, strings.TrimSpace(string(comm)))
		}
	}
	return fd.File("pidfd")
}

// find lists what is left, by environment and by control group: many servers overwrite their environment with a
// title, and some move to another control group. A wrapper that runs this program is no left-over.
func (l *Leftovers) find() ([]int, error) {
	marked, err := l.Tree.PIDs()
	if err != nil {
		return nil, err
	}
	grouped, err := unit.Processes()
	if err != nil {
		return nil, err
	}
	all := slices.Concat(marked, grouped)
	slices.Sort(all)
	all = slices.Compact(all)
	return slices.DeleteFunc(all, func(pid int) bool {
		return pid == os.Getppid() || pid == os.Getpid() || l.Spare != nil && l.Spare(pid)
	}), nil
}

// parent is the parent process of pid, 0 if that cannot be told.
func parent(pid int) int {
	data, err := sys.ReadProc("/proc/"+strconv.Itoa(pid)+"/stat", nil)
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:])) // the command before may hold anything
	if len(fields) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(fields[1])
	return ppid
}

// endForgotten ends what this unit's control group holds although nothing is known of an earlier start. systemd stops a
// unit between two starts of a supervisor that dies at once without running ExecStopPost=, leaves its workers alive, and
// drops all that tells of them (252 leaves the runtime directory): they would keep the addresses that the next worker
// needs.
func (d *Daemon) endForgotten() {
	pids, err := unit.Processes()
	if err != nil || len(pids) == 0 {
		return
	}
	// Started by hand, this process is in the control group of something else, be it the shell of a session or the
	// service of another.
	if d.manager.properties(context.Background()) == nil {
		return
	}
	var ended []string
	left := &Leftovers{
		Tree: &worker.Tree{Marker: handoff.Marker(d.opts.Name, d.identity)},
		// A wrapper that became this process may have put a filter at the other end of its output.
		Spare: func(pid int) bool { return parent(pid) == os.Getpid() },
		Said: func(pid int, sig syscall.Signal, comm string) {
			if sig == syscall.SIGTERM {
				ended = append(ended, fmt.Sprintf("%d (%s)", pid, text.Printable(comm)))
			}
		},
	}
	err = left.End(context.Background(), LeftoverGrace)
	if len(ended) == 0 && err == nil {
		return
	}
	note := "an earlier start of the service, of which nothing else is known, has left processes in its control group, which are ended: " + strings.Join(ended, ", ")
	if err != nil {
		note += ": " + err.Error()
	}
	d.Note(handoff.Warning, note)
}
