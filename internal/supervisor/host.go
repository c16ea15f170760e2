package supervisor

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/intercept"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// The daemon is the [handoff.Host]: these methods run on the goroutine of a handoff or drain.
var _ handoff.Host = (*Daemon)(nil)

// history is how many ended generations and handoffs are remembered.
const history = 10

// LoadConfig implements [handoff.Host].
func (d *Daemon) LoadConfig() (*config.Config, error) { return config.Load(d.opts.ConfigPath) }

// Paths implements [handoff.Host].
func (d *Daemon) Paths() (name, runtime, getsocks string) {
	return d.opts.Name, d.opts.RuntimeDir, d.getsocksPath()
}

// LastSlot implements [handoff.Host].
func (d *Daemon) LastSlot() (slot int) {
	d.Do(func(*sockets.Set) { slot = d.slot })
	return slot
}

// Begin implements [handoff.Host]. The state says "starting" before there is a process: should the supervisor die in
// between, the next one knows whom to look for.
func (d *Daemon) Begin(cfg *config.Config, slot int) (*handoff.Generation, error) {
	var g *handoff.Generation
	var err error
	d.Do(func(*sockets.Set) {
		d.lastN++
		g = handoff.NewGeneration(d.lastN, slot, cfg)
		g.Dir, g.WordsFrom = d.generationDir(g.N), wordsFrom()
		if err = os.MkdirAll(g.Dir, 0o755); err != nil {
			return
		}
		if g.Notify, err = worker.ListenNotify(d.notifyPath(g.N)); err != nil {
			os.Remove(g.Dir)
			return
		}
		d.gens = append(d.gens, g)
		d.save()
	})
	return g, err
}

// Spawned implements [handoff.Host].
func (d *Daemon) Spawned(g *handoff.Generation) error {
	var err error
	d.Do(func(*sockets.Set) {
		d.watch(g)
		err = d.sync()
		d.answerBinds(g)
	})
	if err != nil {
		return fmt.Errorf("store the worker's pidfd: %w", err)
	}
	return nil
}

// Discard implements [handoff.Host].
func (d *Daemon) Discard(g *handoff.Generation, outcome string) {
	d.Do(func(*sockets.Set) { d.gone(g, outcome) })
}

// Switch implements [handoff.Host]. The end of a generation that does not serve yet is nobody's event (onExit), so it
// must be noticed here, on the loop.
func (d *Daemon) Switch(old, next *handoff.Generation, drop func(*sockets.Set)) (err error) {
	d.Do(func(held *sockets.Set) {
		if err = next.Exited(); err != nil {
			return
		}
		if old != nil && old.State == handoff.Serving {
			old.State = handoff.Draining
		}
		next.State = handoff.Serving
		d.serving, d.slot, d.config = next, next.Slot, next.Config
		d.settlePushed(next)
		drop(held)
		d.armWatchdog(next)
		d.linkPIDFile(next)
		d.save()
	})
	return err
}

// StopOld implements [handoff.Host]. The drain belongs to the daemon, so that it goes on whatever becomes of the
// handoff; here only its end is waited for.
func (d *Daemon) StopOld(ctx context.Context, old *handoff.Generation) error {
	for {
		var changed chan struct{}
		d.Do(func(*sockets.Set) {
			if old != nil && old.State == handoff.Serving {
				old.State = handoff.Draining
				d.serving = nil
				d.slot = 1 - old.Slot // what arrives waits at the other half of each pair, for the next generation
				d.save()
				for _, dr := range d.drains {
					dr.advance() // clients wait until none of them is left
				}
				d.startDrain(old, d.slot, nil)
			}
			for _, g := range d.gens {
				if g.State == handoff.Draining {
					changed = d.changed
				}
			}
		})
		if changed == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watch starts the goroutines that turn a generation's end and messages into events.
func (d *Daemon) watch(g *handoff.Generation) {
	if g.Process == nil {
		return
	}
	go func() {
		select {
		case <-g.Process.Done():
			d.Do(func(*sockets.Set) { d.onExit(g) })
		case <-d.ended:
		}
	}()
	d.listenTo(g)
}

// binding is who answers a generation's bind(2) calls.
type binding struct {
	stop context.CancelFunc
	done chan struct{} // closed when the last answer is given
}

// answerBinds gives the generation our sockets for its own bind(2) calls until it is gone or let go of: its processes may
// outlive the main one, and each bind(2) of theirs waits for an answer. It is begun when systemd has the descriptor: a call
// that was received and not answered is not seen again by the next supervisor.
func (d *Daemon) answerBinds(g *handoff.Generation) {
	if g.Intercept == nil || d.binds[g] != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &binding{cancel, make(chan struct{})}
	d.binds[g] = b
	notify := g.Intercept
	go func() {
		defer close(b.done)
		err := intercept.Serve(ctx, notify, handoff.Resolver(d, g), func(err error) {
			d.Note(handoff.Warning, fmt.Sprintf("generation %d binds by itself: %v", g.N, err))
		})
		if err != nil && ctx.Err() == nil {
			d.Note(handoff.Warning, fmt.Sprintf("bind calls of generation %d are not answered any more: %v", g.N, err))
		}
	}()
}

// endBinds ends that, and closes the descriptor after the last answer. That may need the loop, so it is not waited for here.
func (d *Daemon) endBinds(g *handoff.Generation) {
	notify, b := g.Intercept, d.binds[g]
	g.Intercept = nil
	delete(d.binds, g)
	if b == nil {
		notify.Close()
		return
	}
	b.stop()
	go func() {
		<-b.done
		notify.Close()
	}()
}

// pauseBinds leaves the calls that come from now on to the next program of this process. It returns when those before are
// answered.
func (d *Daemon) pauseBinds() {
	var paused []*binding
	d.Do(func(*sockets.Set) {
		for _, b := range d.binds {
			b.stop()
			paused = append(paused, b)
		}
	})
	for _, b := range paused {
		<-b.done
	}
}

// resumeBinds is for when there is no next program after all.
func (d *Daemon) resumeBinds() {
	for g, b := range d.binds {
		select {
		case <-b.done:
			delete(d.binds, g)
			d.answerBinds(g)
		default: // begun since
		}
	}
}

// release lets go of a generation's process without ending it.
func (d *Daemon) release(g *handoff.Generation) {
	if g.Notify != nil {
		g.Notify.Release()
		g.Notify = nil
	}
	d.endBinds(g)
	g.CloseLeaving()
	if g.Process != nil {
		g.Process.Release()
	}
}

// gone records the end of a generation.
func (d *Daemon) gone(g *handoff.Generation, outcome string) {
	if g.State == handoff.Gone {
		return
	}
	if g.State == handoff.Starting {
		d.discardPushed(g)
	}
	g.State, g.Outcome, g.Ended, g.Phase = handoff.Gone, outcome, time.Now(), ""
	d.log.Info("generation gone", "generation", g.N, "worker", g.PID(), "outcome", outcome)
	if g.Notify != nil {
		g.Notify.Close()
		g.Notify = nil
	}
	if g.Process != nil {
		g.Process.Release()
	}
	d.endBinds(g)
	g.CloseLeaving()
	os.RemoveAll(g.Dir)
	close(d.changed)
	d.changed = make(chan struct{})
	d.trimHistory()
	d.save()
}

// trimHistory forgets the oldest of the gone generations.
func (d *Daemon) trimHistory() {
	count := 0
	for i := len(d.gens) - 1; i >= 0; i-- {
		if d.gens[i].State != handoff.Gone {
			continue
		}
		if count++; count > history && d.gens[i].N != d.lastServed() {
			d.gens = append(d.gens[:i], d.gens[i+1:]...)
		}
	}
}

// linkPIDFile points the pid file's fixed path at the serving generation's own.
func (d *Daemon) linkPIDFile(g *handoff.Generation) {
	w := g.Config.Worker
	if w.PIDLink == "" {
		return
	}
	values := handoff.Values(d, d.held, g)
	file, err := config.Expand(w.PIDFile, values)
	var link string
	if err == nil {
		link, err = config.Expand(w.PIDLink, values)
	}
	if err == nil {
		temp := link + ".supervisor"
		os.Remove(temp)
		if err = os.Symlink(file, temp); err == nil {
			err = os.Rename(temp, link)
		}
	}
	if err != nil {
		d.Note(handoff.Warning, fmt.Sprintf("cannot link the pid file of generation %d: %v", g.N, err))
	}
}

// Note implements [handoff.Host]: it logs, and keeps warnings for status. It may be called from anywhere.
func (d *Daemon) Note(level handoff.Level, text string) {
	if level == handoff.Warning {
		d.log.Warn(text)
		d.warnings.add(text)
		return
	}
	d.log.Info(text)
}

// warnings are the last few warnings.
type warnings struct {
	mu   sync.Mutex
	list []string
}

func (w *warnings) add(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, time.Now().UTC().Format(time.RFC3339)+" "+text)
	w.list = w.list[max(0, len(w.list)-history):]
}

func (w *warnings) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.list...)
}
