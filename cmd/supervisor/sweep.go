package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/supervisor"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/internal/text"
	"github.com/8265a91a/supervisor/internal/unit"
	"github.com/8265a91a/supervisor/pkg/worker"
)

var sweepCommand = command{
	name:    "sweep",
	summary: "end what a stopped service left behind (for ExecStopPost=)",
	usage: `usage: supervisor sweep NAME

Run by systemd after the supervisor has ended (ExecStopPost=). If the unit is being stopped, it ends every process that
is left of the service: those in the unit's control group, and those that carry the service's SUPERVISOR_GENERATION in
their environment. They get SIGTERM, and after 5 seconds SIGKILL. On a restart, and after a crash of the supervisor, it leaves
everything alone: the next supervisor adopts it.

exit codes: 0 nothing is left, or nothing was to be done; 1 something is left, or nobody can tell
`,
	prepare: func(*flags) func(*env, []string) error {
		return func(e *env, operands []string) error {
			name, err := e.oneName(operands)
			if err != nil {
				return err
			}
			return sweep(e, name)
		}
	},
}

// sweepGrace is how long a left-over may take to end, after SIGTERM and again after SIGKILL.
const sweepGrace = 5 * time.Second

func sweep(e *env, name string) error {
	if os.Getenv("SERVICE_RESULT") == "" {
		return usageError{"sweep is for systemd to run, as ExecStopPost= of the service's unit", "systemctl stop supervisor@" + name}
	}
	own := unit.Own()
	if own == "" {
		return errors.New("this process runs in no service: nothing is ended")
	}
	job, err := unit.JobType(context.Background(), own)
	if err != nil {
		return fmt.Errorf("cannot tell a stop of %s from a restart, so nothing is ended: %w", own, err)
	}
	// Only a stop is followed by nothing. $SERVICE_RESULT cannot tell: a restart is a "success", too, and a stop
	// that ran into its time limit is none.
	if job != "stop" {
		return nil
	}
	left := &leftovers{
		tree: &worker.Tree{},
		said: func(pid int, sig syscall.Signal, comm string) {
			fmt.Fprintf(e.stdout, "sent %s to process %d (%s), left behind by service %s\n", sys.SignalName(sig), pid, text.Printable(comm), name)
		},
	}
	// Without its runtime directory the service has its control group.
	if identity, err := supervisor.Identity(filepath.Join(e.runtimeDir, name)); err == nil {
		left.tree.Marker = handoff.Marker(name, identity)
	}
	// TimeoutStopSec= holds for this command too: asked to end, it kills what is left.
	patience, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return left.sweep(patience, sweepGrace)
}

// leftovers are the processes of a service that has no supervisor any more.
type leftovers struct {
	tree *worker.Tree
	// said is told of each process that was sent a signal.
	said func(pid int, sig syscall.Signal, comm string)
}

// sweep ends them all, without more grace when patience ends.
func (l *leftovers) sweep(patience context.Context, grace time.Duration) error {
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
func (l *leftovers) signal(ctx context.Context, sig syscall.Signal) ([]int, error) {
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
func (l *leftovers) signalOne(pid int, sig syscall.Signal, sent map[int]bool) *os.File {
	fd, err := sys.PidfdOpen(pid)
	if err != nil {
		return nil
	}
	// From here on the pid cannot be given to another process unnoticed.
	if !unit.Contains(pid) && !l.tree.Contains(pid) {
		fd.Close()
		return nil
	}
	if !sent[pid] {
		sent[pid] = true
		comm, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
		if sys.PidfdSignal(fd.Num(), sig) == nil {
			l.said(pid, sig, strings.TrimSpace(string(comm)))
		}
	}
	return fd.File("pidfd")
}

// find lists what is left, by environment and by control group: many servers overwrite their environment with a
// title, and some move to another control group. A wrapper that runs this command is no left-over.
func (l *leftovers) find() ([]int, error) {
	marked, err := l.tree.PIDs()
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
	return slices.DeleteFunc(all, func(pid int) bool { return pid == os.Getppid() || pid == os.Getpid() }), nil
}
