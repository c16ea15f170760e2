// Package handoff puts generation n+1 of a worker in the place of generation n.
//
// It is one list of named steps, each with what it does and how it is undone,
// run in order and timed. Beside it stands the trace that it was made after:
// strace of the master of an HAProxy that reloads itself.
//
//	step       HAProxy's master does                         here
//	check      -                                             NAME.toml and worker.check
//	fetch      connect("/run/haproxy/admin.sock")            the same, or pidfd_getfd(2)
//	           sendto("_getsocks\n")
//	           recvmsg(SCM_RIGHTS [5, 6, 7, 8, 9])
//	store      -                                             FDSTORE=1 to systemd, BARRIER=1
//	spawn      clone()                                       clone(), with all sockets
//	ready      -                                             the worker proves that it listens
//	reconcile  -                                             what does it listen on now?
//	switch     -                                             n+1 serves, n drains
//	divert     -                                             new connections leave n
//	idle       -                                             the last connection leaves n
//	signal     kill(SIGUSR1)                                 the same, then a deadline
//	           close(5..9)                                   the copies stay: they restart a crashed worker
//
// HAProxy signals before it clones: whatever fails after that, fails with
// nobody accepting. With order = "signal-first" the list here does so too, for
// workers of which two cannot run side by side; what arrives meanwhile waits in
// the half of each pair that the next one accepts on. In the default order nothing
// is taken from the old worker before the new one has proved itself; until
// "switch" every failure is undone and the old worker has noticed nothing.
package handoff

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/fault"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
)

// Handoff replaces Old, which may be nil, by New. It runs in a goroutine of its own and reaches the daemon's state
// through Host only.
type Handoff struct {
	Host Host
	Kind Kind
	Old  *Generation
	// New is made by the spawn step, unless an earlier supervisor died after that: then it is given, and starting.
	New *Generation
	// Config is what New runs with. The check step of a reload reads it; otherwise it is given.
	Config *config.Config
	// OnStep is called after each step.
	OnStep func(Timed)
	Trace  Trace

	bound      []*sockets.Socket // sockets that this handoff bound, closed again when it fails
	adjusted   []*sockets.Socket // held sockets whose options were compared with the configuration
	restore    []func()          // puts back what it changed of others; called last first, inside Do
	listens    *listening        // how New was seen to be ready, where that was asked for
	claimed    map[uint64]bool   // identities of the sockets that New listens on; nil if that cannot be told
	added      []*sockets.Socket // those that it bound itself
	pair       *pairing          // the supervisor's end of -x sockpair@N while New starts
	bindings   *interception     // where New's exec shim sends what its bind(2) calls are answered by
	duplicates []*sys.FD         // of what workers pushed, for New
}

// Host is what a handoff needs of the daemon.
type Host interface {
	// Do runs f on the goroutine that owns the daemon's state, and waits for it.
	Do(f func(held *sockets.Set))
	// LoadConfig reads the configuration file.
	LoadConfig() (*config.Config, error)
	// Sync brings systemd's FD store to what is held now, and waits until systemd has it.
	Sync(ctx context.Context) error
	// LastSlot is the slot of the last generation that served, 0 before the first.
	LastSlot() int
	// Begin numbers a generation, makes its directory and notify socket, and records it as starting.
	Begin(cfg *config.Config, slot int) (*Generation, error)
	// Spawned records the process of a generation.
	Spawned(g *Generation) error
	// Discard records the end of a generation that never served.
	Discard(g *Generation, outcome string)
	// Switch makes next the serving generation and old, unless nil, a draining one, and calls drop before that is
	// written down. It fails if next has ended.
	Switch(old, next *Generation, drop func(held *sockets.Set)) error
	// StopOld tells old, unless nil, to stop, and waits until no generation is left (signal-first).
	StopOld(ctx context.Context, old *Generation) error
	// Vacate sees to it that no older generation accepts any more on the sockets of slot, before traffic goes there. It
	// gives one that is not told to stop yet some time to become idle.
	Vacate(ctx context.Context, slot int)
	// LastWords returns what the generation last wrote, if that can be told.
	LastWords(g *Generation) string
	// Pushed lists what workers asked to have kept and is no listening socket. Only inside Do.
	Pushed() []Extra
	// Paths returns the service's name, its runtime directory and the path of the supervisor's own _getsocks server.
	Paths() (name, runtime, getsocks string)
	// Marker is the environment entry that every process of generation n carries, see MarkerOf.
	Marker(n int) string
	// Note logs one sentence that an administrator should see.
	Note(level Level, text string)
}

// Extra is a descriptor beside the sockets that every generation receives under its name. The daemon owns it.
type Extra struct {
	Name string
	FD   int
}

// Level is how much a note matters.
type Level int

// The levels.
const (
	Info Level = iota
	Warning
)

// step is one row of the table: do, and how to undo it if a later step fails. A nil undo means that there is
// nothing to undo.
type step struct {
	name string
	do   func(context.Context) (note string, err error)
	undo func()
}

// steps is the handoff. Read it top to bottom.
func (h *Handoff) steps() []step {
	check := step{"check", h.check, h.unbind} // a check with sockets binds them, otherwise fetch does
	fetch := step{"fetch", h.fetch, nil}
	store := step{"store", h.store, nil} // what unbind closes, the Sync after the undo removes from the store
	spawn := step{"spawn", h.spawn, h.kill}
	ready := step{"ready", h.ready, nil}
	reconcile := step{"reconcile", h.reconcile, h.forget}
	change := step{"switch", h.change, nil}
	stop := step{"signal", h.stopOld, nil}

	if h.New != nil {
		resume := step{"resume", h.resume, h.kill}
		return []step{resume, ready, reconcile, change}
	}
	if h.decides().Handoff.Order == config.OrderSignalFirst {
		return []step{check, fetch, store, stop, spawn, ready, reconcile, change}
	}
	// What follows "switch" is the drain of Old: see Drain. It runs beside later handoffs.
	return []step{check, fetch, store, spawn, ready, reconcile, change}
}

// decides is the configuration that decides the order: the one being replaced, since it is the old worker that
// can or cannot run beside another.
func (h *Handoff) decides() *config.Config {
	if h.Old != nil {
		return h.Old.Config
	}
	return h.Config
}

// Failure is a failed handoff: which step, why, and what still holds.
type Failure struct {
	Step  string
	Err   error
	Holds string
	// Words is what the new worker last wrote.
	Words string
	// PIDs are the processes that were seen of it, none if it was not started, and Since is when that was.
	PIDs  []int
	Since time.Time
}

func (f *Failure) Error() string {
	return fmt.Sprintf("%s failed: %v; %s", f.Step, f.Err, f.Holds)
}

func (f *Failure) Unwrap() error { return f.Err }

// Run performs the handoff. Its error is a *Failure, after everything was undone.
func (h *Handoff) Run(ctx context.Context) error {
	h.Trace.Kind, h.Trace.Started = h.Kind, time.Now()
	h.Trace.Order = h.decides().Handoff.Order
	if h.Old != nil {
		h.Trace.From = h.Old.N
	}
	defer func() { h.pair.close(); h.bindings.close(); sys.CloseAll(h.duplicates) }()
	steps := h.steps()
	for i, s := range steps {
		fault.Point("before " + s.name)
		began := time.Now()
		note, err := s.do(ctx)
		h.record(s.name, began, note, err)
		if err != nil {
			f := h.fail(s.name, err)
			for j := i; j >= 0; j-- {
				if steps[j].undo != nil {
					steps[j].undo()
				}
			}
			h.settleStore(ctx)
			h.finish(f)
			return f
		}
		fault.Point("after " + s.name)
	}
	h.finish(nil)
	return nil
}

func (h *Handoff) record(name string, began time.Time, note string, err error) {
	t := Timed{Name: name, Took: time.Since(began), Note: note}
	if err != nil {
		t.Error = err.Error()
	}
	h.Trace.Steps = append(h.Trace.Steps, t)
	if h.OnStep != nil {
		h.OnStep(t)
	}
}

func (h *Handoff) finish(f *Failure) {
	h.Trace.Took = time.Since(h.Trace.Started)
	h.Trace.OK = f == nil
	if f != nil {
		h.Trace.Error = f.Error()
	}
	if h.New != nil {
		h.Trace.To = h.New.N
	}
}

// fail says what still holds. It runs before the undo, while the failed worker can still be asked for its words.
func (h *Handoff) fail(name string, err error) *Failure {
	f := &Failure{Step: name, Err: err, Holds: "no worker serves, the sockets stay held"}
	if errors.Is(err, context.Canceled) {
		f.Err = errors.New("the supervisor is stopping")
	}
	if h.Old != nil {
		h.Host.Do(func(*sockets.Set) {
			if h.Old.State == Serving { // it may have died meanwhile
				f.Holds = fmt.Sprintf("generation %d (pid %d) keeps serving", h.Old.N, h.Old.PID())
			}
		})
	}
	if h.New != nil {
		f.Words, f.PIDs, f.Since = h.Host.LastWords(h.New), h.New.Seen(), h.New.Since
	}
	return f
}

// settleStore brings the FD store back to what is held after an undo.
func (h *Handoff) settleStore(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := h.Host.Sync(ctx); err != nil {
		h.Host.Note(Warning, "cannot bring the FD store back to what is held: "+err.Error())
	}
}

// The longest that a step may take which waits for somebody else and has no limit in the configuration.
const (
	fetchTimeout = 5 * time.Second
	storeTimeout = 10 * time.Second
)

// store puts new sockets into systemd's FD store before any worker depends on them.
func (h *Handoff) store(ctx context.Context) (string, error) {
	if h.Kind == Restart {
		return "not waited for: clients do", nil // what is held was stored before; the daemon looks again afterwards
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return "", h.tolerate(h.Host.Sync(ctx))
}

// tolerate makes a warning of an error of the FD store where no worker serves: clients come first. A start of the service
// fails by it, since somebody waits for its result.
func (h *Handoff) tolerate(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	nobody := h.Kind == Restart
	if h.Old != nil {
		h.Host.Do(func(*sockets.Set) { nobody = h.Old.State != Serving })
	}
	if !nobody {
		return err
	}
	h.Host.Note(Warning, fmt.Sprintf("%v; the worker is started all the same, for none serves", err))
	return nil
}

// resume stands for all steps up to spawn, which an earlier supervisor has done.
func (h *Handoff) resume(context.Context) (string, error) {
	return fmt.Sprintf("generation %d (pid %d) was starting when the last supervisor ended", h.New.N, h.New.PID()), nil
}

// change is the point of no return: n+1 serves.
func (h *Handoff) change(context.Context) (string, error) {
	dropped := 0
	if err := h.Host.Switch(h.Old, h.New, func(held *sockets.Set) { dropped = h.dropUnused(held) }); err != nil {
		return "", err
	}
	note := fmt.Sprintf("generation %d (pid %d) serves", h.New.N, h.New.PID())
	if dropped > 0 {
		note += fmt.Sprintf(", sockets dropped: %d", dropped)
	}
	return note, nil
}

// stopOld is "signal" in the order of the strace: the old worker stops, and whatever else is left ends, before the new
// one starts. Until then
// connections wait in the backlog of the held sockets.
func (h *Handoff) stopOld(ctx context.Context) (string, error) {
	return "", h.Host.StopOld(ctx, h.Old)
}
