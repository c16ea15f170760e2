// Package supervisor is the daemon: it holds the sockets of one service, keeps
// one worker serving on them, and replaces it on request.
//
// One goroutine, the loop, owns all state. Everything that waits (a handoff, a
// drain, the control socket, a worker's messages) runs beside it and turns what
// it learns into a function that the loop calls ([Daemon.Do]). So there is no
// lock order to get wrong, and the daemon answers while a handoff waits.
//
//	supervisor.go  start-up, top to bottom; options
//	loop.go        the loop, signals, timers
//	claim.go       one supervisor a service; what its processes are known by
//	inherited.go   the descriptors that came with LISTEN_FDS, sorted
//	adopt.go       the state and the workers that the last supervisor left
//	adoptsockets.go
//	               the sockets that it left
//	leftovers.go   what nobody knows any more: at the end, and at a start
//	resume.go      a handoff during which the last supervisor died
//	state.go       the state memfd
//	keep.go        bringing systemd's FD store to what is held
//	host.go        what internal/handoff may do to the state
//	operate.go     start, reload, restart: one handoff at a time, one queued
//	pairs.go       steered pairs: new connections go where somebody accepts
//	drains.go      old generations on their way out
//	messages.go    what workers say on their notify sockets
//	stop.go        stop, restart of the service, the end
//	reexec.go      another binary in place of this one, same process
//	manager.go     what is said to and asked of systemd
//	words.go       the last words of a failed worker
//	inspect.go     status and fds
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/internal/fault"
	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/activation"
	"github.com/8265a91a/supervisor/pkg/getsocks"
)

// Options are what the command line decides.
type Options struct {
	// Name is the service's name.
	Name string
	// ConfigPath is NAME.toml.
	ConfigPath string
	// RuntimeDir is the service's own runtime directory, such as /run/supervisor/NAME. It is created if need be.
	RuntimeDir string
	Version    string
	Log        *slog.Logger

	tellStore func() (storeUse, bool) // see manager
}

// Daemon is a running supervisor.
type Daemon struct {
	opts Options
	// identity is a secret that only processes of this service carry, see claim.go.
	identity string
	log      *slog.Logger
	started  time.Time // of this process, or since it replaced its binary
	since    time.Time // of the service: kept over supervisors
	manager  *manager
	calls    chan func()
	signals  chan os.Signal
	ended    chan struct{} // closed when the loop ends

	held    *sockets.Set
	pushed  []*pushed
	keeper  *keeper
	config  *config.Config        // what the next start of a worker uses
	gens    []*handoff.Generation // in order of N; the gone ones are a short history
	serving *handoff.Generation
	// starting is a generation in the middle of a handoff during which the last supervisor died (see resume.go).
	starting *handoff.Generation
	lastN    int
	slot     int

	op      *operation // the handoff under way
	queued  *operation // the one that follows
	drains  map[*handoff.Generation]*drain
	binds   map[*handoff.Generation]*binding
	backoff backoff
	retry   *time.Timer
	retryAt time.Time
	traces  []*handoff.Trace

	unsaved    *time.Timer  // until what could not be saved is tried again
	saves      gathered     // that workers cause
	statuses   gathered     // what workers say of themselves
	complained [2]time.Time // by level: about what workers push

	// left are the halves of pairs at which connections wait although a handoff was begun for them (true), or for which
	// none was, since the worker does not accept there (false).
	left map[half]bool
	// watching are the other such halves, as long as nobody accepts there; nil during a handoff.
	watching *sys.Watch

	warnings warnings
	// everServed says that a worker has served under this process: from then on it is restarted, before that a
	// failing start is the end.
	everServed   bool
	failedStarts int // see pauseAfterFailures
	stopping     bool
	hurry        bool // a stop was asked for twice
	replacing    bool // by another binary (see reexec.go)
	// changed is closed, and replaced, when a generation is gone.
	changed chan struct{}
	exit    chan error // the result of Run
	// stopServers closes the control socket and the _getsocks server and waits for their clients.
	stopServers func()
}

// Run is the daemon's life. It returns nil after an orderly stop. The environment's LISTEN_*, NOTIFY_SOCKET and
// WATCHDOG_* are consumed.
func Run(ctx context.Context, opts Options) error {
	if os.Getenv("INVOCATION_ID") != "" {
		// systemd starts services with SIGPIPE ignored (IgnoreSIGPIPE=). Go's runtime undoes that, also for children.
		signal.Ignore(syscall.SIGPIPE)
	}
	// What is asked for too early waits: a reload would end the process, and so would a stop, without a drain.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR2, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	received, problems := activation.Take()
	d := &Daemon{
		opts: opts, log: opts.Log, started: time.Now(), since: time.Now(),
		calls: make(chan func()), signals: signals, ended: make(chan struct{}), exit: make(chan error, 1),
		changed: make(chan struct{}),
		held:    sockets.NewSet(), left: map[half]bool{},
		drains: map[*handoff.Generation]*drain{}, binds: map[*handoff.Generation]*binding{},
		saves: gathered{pause: 100 * time.Millisecond}, statuses: gathered{pause: time.Second},
	}
	for _, p := range problems {
		d.Note(handoff.Warning, "descriptors passed at start: "+p.Error())
	}
	d.manager = newManager(opts, d.log)
	d.keeper = newKeeper(d.manager, received.StoreMax)
	if err := sys.Subreaper(); err != nil {
		d.Note(handoff.Warning, "orphans of a worker cannot be collected: "+err.Error())
	}
	inherited := sort(received.Descriptors, d)
	if err := d.prepareDirectories(); err != nil {
		inherited.close()
		return err
	}
	// Before anything of the service is touched: another supervisor of it may be alive.
	claimed, identity, err := claim(d.opts.RuntimeDir)
	if err != nil {
		inherited.close()
		return fmt.Errorf("take charge of service %s: %w", d.opts.Name, err)
	}
	defer claimed.Close()
	last := d.readStates(inherited.states)
	if err := d.identify(claimed, identity, last); err != nil {
		inherited.close()
		return fmt.Errorf("write the service's identity: %w", err)
	}
	d.adopt(inherited, last)
	d.pauseAfterFailures(last)
	if err := d.chooseConfig(last); err != nil {
		d.failedStart()
		d.abandon()
		return err
	}
	if err := d.openServers(); err != nil {
		d.abandon()
		return err
	}
	defer func() { d.stopServers() }()
	fault.Point("adopted")
	return d.loop(ctx, last)
}

// prepareDirectories makes the runtime directory; the notify sockets must be reachable by a worker that gave up root.
func (d *Daemon) prepareDirectories() error {
	for _, dir := range []string{d.opts.RuntimeDir, d.notifyDir()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("prepare the runtime directory: %w", err)
		}
	}
	return nil
}

func (d *Daemon) notifyDir() string    { return filepath.Join(d.opts.RuntimeDir, "notify") }
func (d *Daemon) getsocksPath() string { return filepath.Join(d.opts.RuntimeDir, "getsocks.sock") }
func (d *Daemon) generationDir(n int) string {
	return filepath.Join(d.opts.RuntimeDir, fmt.Sprintf("generation-%d", n))
}

// The pause before the n-th start that follows a failed one doubles up to the limit. The limit is short: it is also how
// long systemctl start may hang after the mistake was mended.
const (
	pauseFirst = 100 * time.Millisecond
	pauseLimit = 5 * time.Second
)

// pauseAfterFailures slows down a service that systemd starts again and again without success: a start limit, which is
// systemd's way, closes the listeners of .socket units. The first failure is reported at once.
func (d *Daemon) pauseAfterFailures(last *state) {
	if last == nil || d.serving != nil || last.FailedStarts == 0 {
		return
	}
	d.failedStarts = last.FailedStarts
	pause := min(pauseFirst<<min(d.failedStarts, 10), pauseLimit)
	d.log.Info("the last start failed, waiting before the next", "failed_starts", strconv.Itoa(d.failedStarts), "pause", pause.String())
	for end := time.After(pause); ; {
		select {
		case <-end:
			return
		case sig := <-d.signals:
			defer func() { // it is the loop's to answer
				select {
				case d.signals <- sig:
				default: // full of others
				}
			}()
			if sig == syscall.SIGTERM || sig == syscall.SIGINT {
				return
			}
		}
	}
}

// failedStart leaves a note to the next supervisor.
func (d *Daemon) failedStart() {
	d.failedStarts++
	d.save()
}

// chooseConfig reads the configuration file. With a living worker, or one that was serving before, a broken file is
// a warning: what the worker was started with is still known.
func (d *Daemon) chooseConfig(last *state) error {
	cfg, err := config.Load(d.opts.ConfigPath)
	previous := d.previousConfig(last)
	switch {
	case err != nil && previous == nil:
		return err
	case err != nil:
		d.Note(handoff.Warning, fmt.Sprintf("the configuration cannot be used, the one of generation %d stays in force: %v", d.lastServed(), err))
		d.config = previous
	case d.serving != nil && previous != nil:
		d.config = previous
	default:
		d.config = cfg
	}
	for _, s := range d.held.Ordered(nil) {
		handoff.Reclaim(s, d.config)
	}
	for _, g := range d.gens {
		if g.Config == nil { // what it was started with is lost with its state
			g.Config = d.config
		}
		g.Remember(d.held)
	}
	return nil
}

// previousConfig is what the last serving generation ran with, nil if nobody knows.
func (d *Daemon) previousConfig(last *state) *config.Config {
	if d.serving != nil {
		return d.serving.Config
	}
	if last == nil {
		return nil
	}
	return last.config(last.Serving, d.opts)
}

// openServers opens the control socket and the _getsocks server.
func (d *Daemon) openServers() error {
	ctl, err := control.Listen(filepath.Join(d.opts.RuntimeDir, "control.sock"), os.Getuid())
	if err != nil {
		return fmt.Errorf("open the control socket: %w", err)
	}
	server, err := getsocks.Listen(d.getsocksPath())
	if err != nil {
		ctl.Close()
		return fmt.Errorf("open the _getsocks server: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() {
		control.Serve(ctx, ctl, d)
		done <- struct{}{}
	}()
	go func() {
		if err := server.Serve(ctx, d.lend); err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
			d.Note(handoff.Warning, "the _getsocks server ended: "+err.Error())
		}
		done <- struct{}{}
	}()
	d.stopServers = sync.OnceFunc(func() {
		cancel()
		server.Close()
		<-done
		<-done
		ctl.Close()
	})
	return nil
}

// lend gives the _getsocks server duplicates, because the set may change while a client reads. Of a pair it lends the
// half on which the generation that starts accepts: that is who asks.
func (d *Daemon) lend() (list []getsocks.Socket, release func()) {
	d.Do(func(held *sockets.Set) {
		slot := d.slot
		for _, g := range d.gens {
			if g.State == handoff.Starting {
				slot = g.Slot
			}
		}
		for _, s := range held.Ordered(nil) {
			o := handoff.Offer(s, slot)
			dup, err := o.FD.Dup()
			if err != nil { // the rest fares no better
				d.Note(handoff.Warning, fmt.Sprintf("%d of %d sockets are not given to a client of the _getsocks server: %v", held.Len()-len(list), held.Len(), err))
				return
			}
			o.FD = dup
			list = append(list, o)
		}
	})
	return list, func() { getsocks.CloseAll(list) }
}

// abandon lets go of everything without ending it: the next start finds the same.
func (d *Daemon) abandon() {
	d.unwatch()
	d.held.Close()
	for _, g := range d.gens {
		d.release(g)
	}
	for _, p := range d.pushed {
		p.FD.Close()
	}
}
