package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

// DrainPlan says how a generation is brought to its end.
type DrainPlan struct {
	// Signal is sent to the main process alone, unless Command is set, which is run instead with Env and Dir.
	Signal  syscall.Signal
	Command []string
	Env     []string
	Dir     string
	// Told, unless nil, is called when the signal was sent or the command has ended, unless ctx ended it.
	Told func()
	// Deadline is when Escalate begins if the generation still lives. It survives the supervisor: whoever stores
	// it must do so as CLOCK_MONOTONIC.
	Deadline time.Time
	Escalate []Step
	// Reason is why it escalates, in a note; empty means that the drain took too long.
	Reason string
	// Stage, unless nil, is called at each step of the escalation with the time at which the next one begins.
	Stage func(next time.Time)
	// Success are the ways in which the main process may end.
	Success []Status
}

// Step of an escalation: Signal, unless 0, to the whole tree, then at most Wait for its end.
type Step struct {
	Signal syscall.Signal
	Wait   time.Duration
}

// Status is an exit code, or death by Signal where Signal is not 0.
type Status struct {
	Code   int
	Signal syscall.Signal
}

// Outcome is how a drain went.
type Outcome struct {
	// Exit is how the main process ended. It is not Known if that process still lives, or was not our child.
	Exit sys.Exit
	// Clean says that the main process ended in one of the wanted ways (or in an unknown one), and that no process had
	// to be told twice.
	Clean bool
	// Escalated is the last signal of the escalation that was sent to somebody, 0 for none.
	Escalated syscall.Signal
	// Leftover is the number of processes that still live.
	Leftover int
	// Interrupted says that ctx ended first and the generation was left as it was.
	Interrupted bool
	Took        time.Duration
}

// lastWait is the least time that processes get to die of the last signal.
const lastWait = 2 * time.Second

// Drain tells the main process p to finish, and waits until it and every other process of its tree t has ended; from
// plan.Deadline on it escalates. What outlives the main process may finish its work until the deadline, too. With
// signalled, an earlier Drain has told the worker already, perhaps in another supervisor process, and only the rest is
// done. When ctx ends, Drain returns at once and kills nobody; Drain with an earlier Deadline and signalled can follow.
// note gets a sentence for each thing that is not as planned.
func Drain(ctx context.Context, p *Process, t *Tree, plan DrainPlan, signalled bool, note func(string)) Outcome {
	begin := time.Now()
	d := drain{p: p, t: t, plan: plan, note: note}
	if !signalled {
		d.tell(ctx)
		if plan.Told != nil && (len(plan.Command) == 0 || ctx.Err() == nil) {
			plan.Told()
		}
	}
	patience, cancel := context.WithDeadline(ctx, plan.Deadline)
	gone := d.wait(patience)
	cancel()
	if !gone && ctx.Err() == nil {
		gone = d.escalate(ctx)
	}
	d.out.Took = time.Since(begin)
	d.out.Interrupted = !gone && ctx.Err() != nil
	d.conclude(gone)
	return d.out
}

type drain struct {
	p    *Process
	t    *Tree
	plan DrainPlan
	note func(string)
	out  Outcome
}

// tell begins the drain. If that fails the worker goes on serving until the deadline, so nothing is lost by waiting.
func (d *drain) tell(ctx context.Context) {
	if len(d.plan.Command) == 0 {
		if err := d.p.Signal(d.plan.Signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			d.note(fmt.Sprintf("the drain signal could not be sent: %v", err))
		}
		return
	}
	ctx, cancel := context.WithDeadline(ctx, d.plan.Deadline)
	defer cancel()
	words, err := Run(ctx, Command{Argv: d.plan.Command, Env: d.plan.Env, Dir: d.plan.Dir})
	if err == nil {
		return
	}
	if words != "" {
		err = fmt.Errorf("%w: %s", err, words[strings.LastIndexByte(words, '\n')+1:])
	}
	d.note(fmt.Sprintf("the drain command %s failed: %v", d.plan.Command[0], err))
}

// wait reports whether the main process and its tree ended before ctx did.
func (d *drain) wait(ctx context.Context) bool {
	select {
	case <-ctx.Done():
	case <-d.p.Done():
	}
	select {
	case <-d.p.Done(): // also when both are true
	default:
		return false
	}
	err := d.t.Wait(ctx)
	if err != nil && ctx.Err() == nil {
		d.note(fmt.Sprintf("cannot watch the worker's processes: %v", err))
		<-ctx.Done()
	}
	return err == nil
}

// escalate reports whether everything has ended. Only ctx's end leaves steps undone.
func (d *drain) escalate(ctx context.Context) bool {
	for i, step := range d.plan.Escalate {
		if step.Signal != 0 {
			d.send(step.Signal)
		}
		limit := step.Wait
		if i == len(d.plan.Escalate)-1 {
			limit = max(limit, lastWait)
		}
		if d.plan.Stage != nil {
			d.plan.Stage(time.Now().Add(limit))
		}
		if d.waitFor(ctx, step.Signal, limit) {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
	}
	return false
}

func (d *drain) send(sig syscall.Signal) {
	n, err := d.t.Signal(sig)
	if n == 0 && d.p.Signal(sig) == nil { // /proc cannot be read, or hides it: its pidfd reaches it
		n = 1
	}
	if err != nil {
		d.note(fmt.Sprintf("escalation: %v", err))
	}
	if n > 0 {
		d.out.Escalated = sig
		d.note(fmt.Sprintf("%s: sent %s to %s", cmp.Or(d.plan.Reason, "the drain took too long"), sys.SignalName(sig), count(n)))
	}
}

// waitFor waits for the end at most for limit; with SIGKILL it kills what was forked meanwhile.
func (d *drain) waitFor(ctx context.Context, sig syscall.Signal, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for sig == syscall.SIGKILL && ctx.Err() == nil {
		again, stop := context.WithTimeout(ctx, 100*time.Millisecond)
		gone := d.wait(again)
		stop()
		if gone {
			return true
		}
		d.t.Signal(syscall.SIGKILL)
	}
	return d.wait(ctx)
}

func (d *drain) conclude(gone bool) {
	select {
	case <-d.p.Done():
		d.out.Exit = d.p.Exit()
	default:
	}
	if !gone {
		pids, _ := d.t.PIDs()
		d.out.Leftover = len(pids)
		return
	}
	e := d.out.Exit
	wanted := !e.Known || slices.ContainsFunc(d.plan.Success, func(s Status) bool {
		return s.Signal == e.Signal && (s.Signal != 0 || s.Code == e.Code)
	})
	d.out.Clean = wanted && d.out.Escalated == 0
}

func count(n int) string {
	if n == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", n)
}
