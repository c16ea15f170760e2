package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

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
	left := &supervisor.Leftovers{
		Tree: &worker.Tree{},
		Said: func(pid int, sig syscall.Signal, comm string) {
			fmt.Fprintf(e.stdout, "sent %s to process %d (%s), left behind by service %s\n", sys.SignalName(sig), pid, text.Printable(comm), name)
		},
	}
	// Without its runtime directory the service has its control group.
	if identity, err := supervisor.Identity(filepath.Join(e.runtimeDir, name)); err == nil {
		left.Tree.Marker = handoff.Marker(name, identity)
	}
	// TimeoutStopSec= holds for this command too: asked to end, it kills what is left.
	patience, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return left.End(patience, supervisor.LeftoverGrace)
}
