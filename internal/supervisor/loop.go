package supervisor

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// Do runs f on the loop and waits for it. After the loop's end f is not run. It must not be called from the loop.
func (d *Daemon) Do(f func(held *sockets.Set)) {
	done := make(chan struct{})
	select {
	case d.calls <- func() { f(d.held); close(done) }:
		select {
		case <-done:
		case <-d.ended: // f panicked: whoever waited for it for ever would keep the process from ending
		}
	case <-d.ended:
	}
}

// loop owns the state from here on.
func (d *Daemon) loop(ctx context.Context, last *state) error {
	defer close(d.ended)
	defer reapOrphans()()
	watchdog := d.manager.watchdogTicker()
	defer watchdog.Stop()
	second := &ticker{} // runs only while somebody waits: an idle supervisor does not wake up
	defer second.stop()

	d.begin(last)
	for {
		second.run(d.busy())
		select {
		case call := <-d.calls:
			call()
		case sig := <-d.signals:
			d.onSignal(sig)
		case <-watchdog.C:
			d.manager.notify("WATCHDOG=1")
		case <-second.C:
			d.everySecond()
		case <-ctx.Done():
			ctx = context.Background()
			d.stop()
		case err := <-d.exit:
			d.abandon()
			return err
		}
	}
}

// reapOrphans does what init does, until stop is called. It is no affair of the loop: it waits while a worker is being
// started, perhaps from a file system that hangs.
func reapOrphans() (stop func()) {
	died := make(chan os.Signal, 1)
	died <- syscall.SIGCHLD // what ended before
	signal.Notify(died, syscall.SIGCHLD)
	go func() {
		for range died {
			worker.ReapOrphans()
		}
	}()
	return func() {
		signal.Stop(died)
		close(died)
	}
}

func (d *Daemon) onSignal(sig os.Signal) {
	switch sig {
	case syscall.SIGHUP, syscall.SIGUSR2:
		d.log.Info("reload asked for by signal", "signal", sig.String())
		if _, err := d.requestReload(); err != nil {
			d.Note(handoff.Warning, "cannot reload: "+err.Error())
		}
	case syscall.SIGTERM, syscall.SIGINT:
		d.stop()
	}
}

// begin continues with what was adopted, or starts the first worker.
func (d *Daemon) begin(last *state) {
	for _, g := range d.gens {
		d.watch(g)
	}
	d.resumeDrains()
	d.save()
	for _, g := range d.gens {
		d.answerBinds(g)
	}
	if d.serving == nil {
		d.startFirst(last)
		return
	}
	d.everServed = true
	d.resumeWatchdog()
	d.steerToServing()
	if d.manager.ready(fmt.Sprintf("generation %d (pid %d) adopted", d.serving.N, d.serving.PID())) {
		go d.checkStore()
	}
	d.log.Info("adopted", "generation", d.serving.N, "worker", d.serving.PID(), "took", time.Since(d.started).String())
	switch {
	case d.starting != nil:
		d.start(newOperation(handoff.Reload), d.serving, d.config)
	case last != nil && last.HandoffWanted:
		// The service was restarted: its worker is to be new, too.
		d.requestReload()
	default:
		d.rescue()
	}
}

// busy tells whether somebody waits for something that has a time limit at systemd.
func (d *Daemon) busy() bool {
	return d.op != nil || d.stopping || d.serving != nil && !d.serving.Watchdog.IsZero()
}

// everySecond keeps systemd from losing patience while the limits of the configuration are running, and looks at
// the worker's watchdog.
func (d *Daemon) everySecond() {
	if d.op != nil && !d.stopping { // a stop keeps to TimeoutStopSec=
		d.manager.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (10 * time.Second).Microseconds()))
	}
	d.checkWatchdog(time.Now())
}

// gathered is what workers can cause as often as they like, and what is done at most once in a pause. The loop owns it.
type gathered struct {
	pause time.Duration
	last  time.Time
	next  func() // nil when nothing waits
	timer *time.Timer
	done  chan struct{} // closed when what waits was done
}

// gather does it at once, if it is urgent and the pause since the last time is over, or else once for all that is asked
// for until then.
func (d *Daemon) gather(g *gathered, urgent bool, do func()) {
	waits := g.next != nil
	if !waits {
		g.done = make(chan struct{})
	}
	g.next = do
	run := func() {
		if g.timer != nil {
			g.timer.Stop()
		}
		if do := g.next; do != nil {
			g.next, g.last = nil, time.Now()
			do()
			close(g.done)
		}
	}
	wait := g.pause - time.Since(g.last)
	switch {
	case urgent && wait <= 0:
		run()
	case !waits:
		if wait <= 0 {
			wait = g.pause
		}
		g.timer = time.AfterFunc(wait, func() { d.Do(func(*sockets.Set) { run() }) })
	}
}

// ticker is a one-second ticker that can be switched off.
type ticker struct {
	C <-chan time.Time
	t *time.Ticker
}

func (t *ticker) run(on bool) {
	switch {
	case on && t.t == nil:
		t.t = time.NewTicker(time.Second)
		t.C = t.t.C
	case !on && t.t != nil:
		t.stop()
	}
}

func (t *ticker) stop() {
	if t.t != nil {
		t.t.Stop()
		t.t, t.C = nil, nil
	}
}
