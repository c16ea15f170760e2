package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/8265a91a/supervisor/internal/control"
)

var reexecCommand = command{
	name:    "reexec",
	summary: "replace the binary of a running supervisor in place, as after an upgrade",
	usage: `usage: supervisor reexec NAME [--runtime-dir DIR]
       supervisor reexec --all [--runtime-dir DIR]

Makes the supervisor of the service execute its binary again, in the same process. Workers, sockets and generations
stay as they are. A handoff under way is waited for. Returns when the new program answers.

  --all   every service that runs

exit codes: 0 done, 1 failed, 3 the service is not running
`,
	prepare: func(f *flags) func(*env, []string) error {
		var all bool
		f.toggle("--all", &all)
		return func(e *env, operands []string) error {
			if all {
				return reexecAll(e, operands)
			}
			name, err := e.oneName(operands)
			if err != nil {
				return err
			}
			return reexec(e, name)
		}
	},
}

func reexecAll(e *env, operands []string) error {
	if len(operands) > 0 {
		return usageError{"--all and a name exclude each other: " + strings.Join(operands, " "), ""}
	}
	names, err := control.Running(e.runtimeDir)
	if err != nil {
		return err
	}
	failed := false
	for _, name := range names {
		err := reexec(e, name)
		if err != nil && !errors.Is(err, control.ErrNotRunning) {
			failed = true
			e.report(err)
		}
	}
	if failed {
		return errReported
	}
	return nil
}

// reexecTimeout bounds the wait for the new program to answer.
const reexecTimeout = 30 * time.Second

func reexec(e *env, name string) error {
	before, err := e.status(name)
	if err != nil {
		return err
	}
	client, err := e.dial(context.Background(), name)
	if err != nil {
		return err
	}
	defer client.Close()
	result, err := client.Reexec(context.Background(), e.showEvent) // a handoff under way has limits of its own
	if err != nil && !errors.Is(err, control.ErrLost) {
		return fmt.Errorf("reexec %s: %w", name, err)
	}
	if err == nil && !result.OK {
		e.fail(result.Error, result.Hint)
		return errReported
	}
	ctx, cancel := context.WithTimeout(context.Background(), reexecTimeout)
	defer cancel()
	after, err := e.awaitNew(ctx, name, before.Started)
	if err != nil {
		return hinted{fmt.Errorf("reexec %s: the new program does not answer: %w", name, err), "journalctl -u supervisor@" + name}
	}
	fmt.Fprintf(e.stdout, "%s: pid %d runs version %s\n", name, after.PID, after.Version)
	return nil
}

// awaitNew asks until a supervisor answers that was started after the given time.
func (e *env) awaitNew(ctx context.Context, name string, started time.Time) (control.Status, error) {
	for {
		s, err := e.status(name)
		if err == nil && s.Started.After(started) {
			return s, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return s, errors.Join(err, context.Cause(ctx))
		}
	}
}
