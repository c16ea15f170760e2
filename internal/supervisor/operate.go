package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sockets"
)

// operation is one handoff, running or queued. Who asked for it waits on done.
type operation struct {
	kind    handoff.Kind
	cancel  context.CancelFunc
	onStep  []func(handoff.Timed)
	handoff *handoff.Handoff
	// err is the result, valid once done is closed; drained is closed when the old generation is gone, too.
	err     error
	done    chan struct{}
	drained chan struct{}
}

func newOperation(kind handoff.Kind) *operation {
	return &operation{kind: kind, done: make(chan struct{}), drained: make(chan struct{})}
}

var errStopping = errors.New("the supervisor is stopping")

// requestReload begins a reload, or queues it behind the handoff under way: one more, never more than one, and all
// who ask meanwhile share its result. It sees the configuration as it is when it begins.
func (d *Daemon) requestReload() (*operation, error) {
	switch {
	case d.stopping:
		return nil, errStopping
	case d.op == nil:
		op := newOperation(handoff.Reload)
		d.start(op, d.serving, d.config)
		return op, nil
	case d.queued == nil:
		d.queued = newOperation(handoff.Reload)
	}
	return d.queued, nil
}

// start runs a handoff beside the loop.
func (d *Daemon) start(op *operation, old *handoff.Generation, cfg *config.Config) {
	if d.retry != nil {
		d.retry.Stop()
		d.retry = nil
	}
	d.unwatch()
	ctx, cancel := context.WithCancel(context.Background())
	op.cancel = cancel
	d.op = op
	h := &handoff.Handoff{Host: d, Kind: op.kind, Old: old, New: d.takeStarting(), Config: cfg}
	if h.New != nil {
		h.Config = h.New.Config
	}
	op.handoff = h
	h.Trace.ID = 1
	if n := len(d.traces); n > 0 {
		h.Trace.ID = d.traces[n-1].ID + 1
	}
	h.OnStep = func(t handoff.Timed) {
		d.Do(func(*sockets.Set) {
			for _, f := range op.onStep {
				f(t)
			}
		})
	}
	go func() {
		err := h.Run(ctx)
		cancel()
		d.Do(func(*sockets.Set) { d.finish(op, err) })
	}()
}

// finish takes the result of a handoff, and goes on with what waits.
func (d *Daemon) finish(op *operation, err error) {
	h := op.handoff
	d.op = nil
	d.traces = append(d.traces, &h.Trace)
	d.traces = d.traces[max(0, len(d.traces)-history):]
	if err == nil {
		d.succeeded(op)
	} else {
		close(op.drained)
		d.failed(op, err)
		d.resumeWatchdog()
	}
	op.err = err
	close(op.done)
	d.keeper.handoffWanted = false // what came of it, the caller or the journal knows
	d.save()
	switch {
	case d.stopping:
		d.continueStop()
	case d.queued != nil:
		next := d.queued
		d.queued = nil
		d.start(next, d.serving, d.config)
	case d.serving == nil && d.everServed:
		d.schedule(handoff.Restart, nil)
	default:
		d.rescue()
		d.rest()
	}
}

func (d *Daemon) succeeded(op *operation) {
	h := op.handoff
	text := fmt.Sprintf("generation %d (pid %d) serves since %s", h.New.N, h.New.PID(), h.New.Since.Format(time.RFC3339))
	if d.manager.ready(text) || op.kind == handoff.Restart {
		go d.checkStore()
	}
	d.log.Info("handoff done", "kind", string(op.kind), "generation", h.New.N, "worker", h.New.PID(), "took", h.Trace.Took.String(), "steps", h.Trace.Summary())
	d.everServed, d.failedStarts = true, 0
	d.steerToServing()
	if op.kind == handoff.Reload {
		d.backoff = backoff{} // what an administrator has just replaced is another worker
	}
	if h.Old == nil || h.Old.State != handoff.Draining || h.Old.Crashed {
		close(op.drained)
		return
	}
	dr := d.startDrain(h.Old, h.New.Slot, &h.Trace)
	go func() {
		<-dr.done
		close(op.drained)
	}()
	d.limitDraining()
}

func (d *Daemon) failed(op *operation, err error) {
	if op.kind != handoff.Start { // which startFirst says
		d.log.Error(fmt.Sprintf("%s of %s failed: %v", op.kind, d.opts.Name, describeFailure(err)))
	}
	if op.kind == handoff.Restart {
		d.backoff.reason = err.Error()
	}
	if old := op.handoff.Old; op.kind == handoff.Reload && old != nil && !old.Crashed && d.serving == nil {
		d.backoff = backoff{} // with signal-first it was the reload that ended a good worker: it comes back at once
	}
	if g := op.handoff.New; g != nil && g.Adopted {
		d.dropUnnamed() // what its first steps bound, the last supervisor knew
	}
	d.manager.status(string(op.kind) + " failed: " + err.Error())
}

// describeFailure adds the worker's last words.
func describeFailure(err error) string {
	var f *handoff.Failure
	if errors.As(err, &f) && f.Words != "" {
		return err.Error() + "; its last words: " + f.Words
	}
	return err.Error()
}

// startFirst starts the service's first worker. If that fails the supervisor ends, so that systemctl start fails;
// the sockets are in .socket units and in the FD store and wait there for the next attempt.
func (d *Daemon) startFirst(last *state) {
	cfg := d.config
	previous := d.previousConfig(last)
	resumed := d.starting != nil
	op := newOperation(handoff.Start)
	d.start(op, nil, cfg)
	go func() {
		op := d.lastAfter(op)
		if resumed && op.err != nil {
			d.Do(func(*sockets.Set) {
				if d.op == nil && !d.stopping {
					d.Note(handoff.Warning, fmt.Sprintf("cannot go on with the start of %s, trying another: %s", d.opts.Name, describeFailure(op.err)))
					op = newOperation(handoff.Start)
					d.start(op, nil, cfg)
				}
			})
			op = d.lastAfter(op)
		}
		if op.err == nil || previous == nil || previous.Sum == cfg.Sum {
			d.firstDone(op)
			return
		}
		// The service served before with other arguments: better those than nothing.
		d.Do(func(*sockets.Set) {
			d.Note(handoff.Warning, fmt.Sprintf("cannot start with the present configuration, trying the one of generation %d: %s", d.lastServed(), describeFailure(op.err)))
			if d.op == nil && !d.stopping {
				op = newOperation(handoff.Start)
				d.start(op, nil, previous)
			}
		})
		d.firstDone(d.lastAfter(op))
	}()
}

// lastAfter waits for op, and if that fails for what was asked for meanwhile and follows it. It returns the one that came
// to serve, or the last.
func (d *Daemon) lastAfter(op *operation) *operation {
	for {
		<-op.done
		var next *operation
		d.Do(func(*sockets.Set) { next = d.op })
		if op.err == nil || next == nil {
			return op
		}
		op = next
	}
}

func (d *Daemon) firstDone(op *operation) {
	if op.err == nil {
		return
	}
	d.Do(func(*sockets.Set) {
		if d.serving != nil || d.op != nil || d.stopping {
			d.Note(handoff.Warning, fmt.Sprintf("cannot start %s: %s", d.opts.Name, describeFailure(op.err)))
			return
		}
		d.failedStart()
		d.stopping = true
		d.exit <- &StartError{fmt.Sprintf("cannot start %s: %s", d.opts.Name, describeFailure(op.err)), d.hintFor(op)}
	})
}

// onExit is the end of a generation's main process.
func (d *Daemon) onExit(g *handoff.Generation) {
	if g != d.serving {
		return // a drain or a handoff waits for it
	}
	outcome := "crashed: " + exitString(g)
	d.Note(handoff.Warning, fmt.Sprintf("generation %d (pid %d) %s; its sockets stay held and connections wait", g.N, g.PID(), outcome))
	d.serving = nil
	d.backoff.failed(g.Age(), outcome)
	g.State, g.Crashed = handoff.Draining, true
	d.endOrphans(g, outcome)
	if d.op == nil && !d.stopping {
		d.schedule(handoff.Restart, nil)
	}
}

// endOrphans kills what a dead main process left behind, beside the start of its replacement.
func (d *Daemon) endOrphans(g *handoff.Generation, outcome string) {
	go func() {
		handoff.EndTree(g, 5*time.Second)
		d.Do(func(*sockets.Set) {
			d.gone(g, outcome)
			d.rescue()
		})
	}()
}

// schedule begins a handoff that nobody asked for, with the configuration in force: at once the first time, then with
// growing pauses. One that is asked for meanwhile comes in its place.
// begun, unless nil, is called when it begins.
func (d *Daemon) schedule(kind handoff.Kind, begun func(*operation)) {
	if d.retry != nil {
		d.retry.Stop()
	}
	old := d.serving
	start := func() {
		d.retry = nil
		if d.op == nil && d.serving == old && !d.stopping {
			op := newOperation(kind)
			d.start(op, old, d.config)
			if begun != nil {
				begun(op)
			}
		}
	}
	wait := d.backoff.next()
	if wait == 0 {
		start()
		return
	}
	if old == nil {
		d.Note(handoff.Warning, fmt.Sprintf("the next start of the worker is in %s", wait))
		d.manager.status(fmt.Sprintf("no worker serves, the next start is in %s", wait))
	} else {
		d.Note(handoff.Warning, fmt.Sprintf("the worker is replaced in %s", wait))
	}
	d.retryAt = time.Now().Add(wait)
	d.retry = time.AfterFunc(wait, func() { d.Do(func(*sockets.Set) { start() }) })
}

// backoff is the pause before the next handoff that nobody asked for: none after a worker that served for a while, then 100 ms,
// doubling up to 30 s.
type backoff struct {
	wait     time.Duration
	attempts int    // since a worker last served for long
	reason   string // how the worker ended, or why its last start failed
}

const (
	backoffFirst = 100 * time.Millisecond
	backoffLimit = 30 * time.Second
	backoffReset = 60 * time.Second
)

// failed notes why a worker that served that long is restarted or replaced.
func (b *backoff) failed(served time.Duration, outcome string) {
	if served >= backoffReset {
		b.wait, b.attempts = 0, 0
	}
	b.reason = outcome
}

// next returns the pause before the next start.
func (b *backoff) next() time.Duration {
	wait := b.wait
	b.attempts++
	if wait == 0 {
		b.wait = backoffFirst
	} else {
		b.wait = min(2*b.wait, backoffLimit)
	}
	return wait
}
