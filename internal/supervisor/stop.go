package supervisor

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/fault"
	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/pkg/fdstore"
)

// stop begins the end: SIGTERM, SIGINT, or the caller's context. Asked for again it hurries.
func (d *Daemon) stop() {
	if d.stopping {
		d.hurry = true // also those that begin only now, while systemd is asked what kind of stop this is
		for _, dr := range d.drains {
			dr.hurryUp()
		}
		return
	}
	d.stopping = true
	d.unwatch()
	if d.retry != nil {
		d.retry.Stop()
	}
	if d.queued != nil {
		d.queued.err = errStopping
		close(d.queued.drained)
		close(d.queued.done)
		d.queued = nil
	}
	if d.op != nil {
		d.op.cancel() // it undoes itself, and finish goes on here
		return
	}
	d.continueStop()
}

// continueStop asks what kind of stop this is. On a restart of the service the worker stays: the next supervisor
// adopts it, and hands off to a new one. A stop, and what cannot be told, drains.
func (d *Daemon) continueStop() {
	go func() {
		kind, began, limit, keep := "", time.Now(), time.Duration(0), false
		if d.manager.store != nil {
			kind, limit = d.manager.jobType(), d.manager.stopTimeout()
			keep = d.manager.storeOutlives()
		}
		d.Do(func(*sockets.Set) {
			if strings.Contains(kind, "restart") {
				d.leave()
				return
			}
			d.drainAll(began, limit, keep)
		})
	}()
}

// leave ends this process and nothing else. If no worker serves at the moment, clients wait for the next one's in the
// sockets, which are in the FD store.
func (d *Daemon) leave() {
	d.log.Info("the service is restarted: the next supervisor replaces the worker, which serves until then", "generation", d.lastServed(), "worker", d.serving.PID())
	d.keeper.handoffWanted = true
	d.manager.notify("STOPPING=1")
	for _, dr := range d.drains {
		dr.cancel()
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err := d.Sync(ctx)
		for err != nil && ctx.Err() == nil && !errors.Is(err, fdstore.ErrFull) { // systemd may be busy with the restart
			time.Sleep(100 * time.Millisecond)
			err = d.Sync(ctx)
		}
		if err != nil {
			d.Note(handoff.Warning, "systemd has not confirmed the stored state: "+err.Error())
		}
		d.pauseBinds()
		fault.Point("leaving")
		d.exit <- nil
	}()
}

// drainAll ends the worker and every older generation, and lets go of the sockets first, so that a port refuses as
// soon as the worker closes it. Escalation begins early enough to end before systemd's limit for a stop, whatever
// drain.timeout says: after that limit systemd would leave what still lives to nobody.
//
// With keep the FD store outlives this stop: clients wait in its sockets for the next start. Only those of .socket units
// go, which systemd binds anew.
func (d *Daemon) drainAll(began time.Time, limit time.Duration, keep bool) {
	d.manager.notify("STOPPING=1", "STATUS=draining")
	if g := d.serving; g != nil {
		to := nowhere
		if keep {
			d.slot = 1 - g.Slot
			to = d.slot
		}
		g.State = handoff.Draining
		d.serving = nil
		d.startDrain(g, to, nil)
	}
	for _, s := range d.held.Ordered(nil) {
		if !keep || s.Origin == sockets.Unit {
			handoff.RemoveBound(d.held, s) // of another origin it has no file
		}
	}
	if !keep {
		for _, p := range d.pushed {
			p.FD.Close()
		}
		d.pushed = nil
	}
	d.save()
	fault.Point("stopping")
	var waiting []chan struct{}
	for g, dr := range d.drains {
		waiting = append(waiting, dr.done)
		if d.hurry {
			dr.hurryUp()
		}
		if limit > 0 {
			time.AfterFunc(max(0, time.Until(began.Add(limit-escalation(g.Config)))), dr.hurryUp)
		}
	}
	go func() {
		for _, done := range waiting {
			<-done
		}
		d.exit <- nil
	}()
}

// escalation is how long the escalation of a generation may take, with something to spare.
func escalation(cfg *config.Config) time.Duration {
	total := 5 * time.Second
	for _, e := range cfg.Drain.Escalate {
		total += e.Wait
	}
	return total
}
