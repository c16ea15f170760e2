package supervisor

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// drain is one old generation on its way out.
type drain struct {
	cancel  context.CancelFunc
	advance func() // ends its wait for idle connections: the signal comes
	hurryUp func() // ends all waiting: the escalation begins
	done    chan struct{}
}

// nowhere is the slot that traffic goes to when the service stops.
const nowhere = -1

// startDrain drains g beside everything else. to is the slot that traffic goes to now; trace, which may be nil, gets the
// steps.
func (d *Daemon) startDrain(g *handoff.Generation, to int, trace *handoff.Trace) *drain {
	if dr := d.drains[g]; dr != nil {
		return dr
	}
	ctx, cancel := context.WithCancel(context.Background())
	advance, hurry := make(chan struct{}), make(chan struct{})
	dr := &drain{
		cancel: cancel, done: make(chan struct{}),
		advance: sync.OnceFunc(func() { close(advance) }), hurryUp: sync.OnceFunc(func() { close(hurry) }),
	}
	d.drains[g] = dr
	outcome := ""
	run := &handoff.Drain{
		Host: d, Gen: g, To: to, Skip: to == nowhere, Advance: advance, Hurry: hurry,
		Changed: func() { d.Do(func(*sockets.Set) { d.save() }) },
		OnStep: func(t handoff.Timed) {
			d.Do(func(*sockets.Set) {
				if trace != nil {
					trace.Steps = append(trace.Steps, t)
				}
			})
			if t.Name == "signal" {
				outcome = t.Note
			}
		},
	}
	go func() {
		defer cancel()
		run.Run(ctx)
		if ctx.Err() != nil {
			close(dr.done)
			return // released, not ended: the next supervisor goes on
		}
		d.Do(func(*sockets.Set) {
			delete(d.drains, g)
			d.gone(g, outcome)
			d.rescue()
			d.rest()
		})
		close(dr.done)
	}()
	return dr
}

// rest gives memory back to the kernel when a handoff is over: until the next one, perhaps for months, the daemon needs
// next to none.
func (d *Daemon) rest() {
	if d.op == nil && len(d.drains) == 0 && !d.stopping {
		go debug.FreeOSMemory()
	}
}

// resumeDrains goes on with the drains that the last supervisor began.
func (d *Daemon) resumeDrains() {
	for _, g := range d.gens {
		if g.State == handoff.Draining {
			to := d.slot // also of an interrupted signal-first, where nobody serves
			if to == g.Slot && d.serving == nil {
				to = nowhere
			}
			d.startDrain(g, to, nil)
		}
	}
}

// limitDraining escalates the oldest drains beyond handoff.max_draining.
func (d *Daemon) limitDraining() {
	var draining []*handoff.Generation
	for _, g := range d.gens {
		if d.drains[g] != nil {
			draining = append(draining, g)
		}
	}
	for i := 0; i < len(draining)-d.config.Handoff.MaxDraining; i++ {
		d.Note(handoff.Warning, fmt.Sprintf("more generations drain than handoff.max_draining allows: the oldest, %d, is ended", draining[i].N))
		d.drains[draining[i]].hurryUp()
	}
}

// exitString says how a generation's main process ended.
func exitString(g *handoff.Generation) string { return worker.ExitString(g.Process.Exit()) }
