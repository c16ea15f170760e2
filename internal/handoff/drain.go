package handoff

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/divert"
	"github.com/8265a91a/supervisor/internal/fault"
	"github.com/8265a91a/supervisor/internal/probe"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// Drain is the second half of a handoff: generation n, which does not serve any more, comes to its end. Drains of
// several generations run side by side, and a drain goes on under the next supervisor process where the last left
// it (Generation.Signalling, Generation.Signalled, Generation.Deadline).
type Drain struct {
	Host Host
	Gen  *Generation
	// To is the slot whose half of each pair gets what arrives from now on.
	To int
	// Changed is called when something changed that must survive the supervisor.
	Changed func()
	// OnStep is called after each step.
	OnStep func(Timed)
	// Skip leaves divert and idle out: the service stops.
	Skip bool
	// Advance, when closed, ends idle: the slot is needed, and the wait for it is over.
	Advance <-chan struct{}
	// Hurry, when closed, ends settle and idle at once and begins the escalation: too many generations drain.
	Hurry <-chan struct{}

	sockets []sys.Socket // what it has accepted from
}

// Run drains the generation until none of its processes is left, or ctx ends.
func (d *Drain) Run(ctx context.Context) {
	d.Host.Do(func(held *sockets.Set) { d.sockets = accepted(held, d.Gen) }) // a later handoff may drop some
	steps := []step{
		{"divert", d.divert, nil},
		{"idle", d.idle, nil},
		{"signal", d.signal, nil},
	}
	for _, s := range steps {
		if (d.Skip || d.Gen.Signalling) && s.name != "signal" {
			continue
		}
		fault.Point("before " + s.name)
		d.Host.Do(func(*sockets.Set) { d.Gen.Phase = s.name })
		began := time.Now()
		note, err := s.do(ctx)
		if ctx.Err() != nil {
			return
		}
		t := Timed{Name: s.name, Took: time.Since(began), Note: note}
		if err != nil {
			t.Error = err.Error()
			d.Host.Note(Warning, fmt.Sprintf("drain of generation %d: %s: %v", d.Gen.N, s.name, err))
		}
		d.OnStep(t)
		fault.Point("after " + s.name)
	}
}

// divert keeps new connections from n before it is told to stop: with most servers a connection that is accepted
// but not yet read at that moment is lost. Failing to divert is a warning, never a failed reload.
func (d *Drain) divert(ctx context.Context) (string, error) {
	// Another socket of the address may be that of the next generation, and as long as the kernel shares datagrams among the
	// two, each may get one of the same connection.
	d.Host.Do(func(*sockets.Set) { d.hide(d.Gen.Leaving, "udp") })
	mode := d.Gen.Config.Drain.Divert
	steered, rest := d.steer(mode)
	if len(steered)+len(rest) == 0 && (mode == config.DivertNone || lossless(d.Gen.Config)) {
		d.use(config.DivertNone)
		return "none", nil
	}
	fenced := 0
	var problem error
	if len(rest) > 0 && mode != config.DivertSteer {
		fenced, problem = d.fence(rest)
	} else if len(rest) > 0 {
		problem = fmt.Errorf("%d of %d sockets cannot be steered", len(rest), len(rest)+len(steered))
	}
	d.use(divertName(len(steered), fenced))
	left := steered
	for _, info := range d.Gen.dropped {
		left = append(left, half{info: info}) // only n has it open
	}
	if len(left)+fenced > 0 {
		begun := d.halfOpen(left)
		d.pause(ctx, d.Gen.Config.Drain.Settle)
		d.quiet(ctx, left, begun)
	}
	if problem != nil {
		problem = fmt.Errorf("%w: what generation %d has accepted but not read may be lost", problem, d.Gen.N)
	}
	return fmt.Sprintf("%d steered, %d fenced, settled %s", len(steered), fenced, d.Gen.Config.Drain.Settle), problem
}

func divertName(steered, fenced int) string {
	var names []string
	if steered > 0 {
		names = append(names, config.DivertSteer)
	}
	if fenced > 0 {
		names = append(names, config.DivertFence)
	}
	if len(names) == 0 {
		return config.DivertNone
	}
	return strings.Join(names, "+")
}

func (d *Drain) use(mode string) { d.Host.Do(func(*sockets.Set) { d.Gen.Divert = mode }) }

// pause waits, unless the service is in a hurry.
func (d *Drain) pause(ctx context.Context, t time.Duration) {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-d.Hurry:
	case <-d.Gen.Process.Done():
	case <-ctx.Done():
	}
}

// quietLimit bounds the wait for an empty accept queue: a worker that has stopped accepting empties none, and a client
// need not complete its handshake.
const quietLimit = 5 * time.Second

// quiet waits until n has taken what had arrived at its half of each pair before the traffic was steered away, and those
// have arrived whose handshake had begun there.
func (d *Drain) quiet(ctx context.Context, halves []half, begun map[uint64]bool) {
	ctx, cancel := context.WithTimeout(ctx, quietLimit)
	defer cancel()
	ctx, cancel = until(ctx, d.Hurry)
	defer cancel()
	// The dead take nothing, and what they left is somebody else's the sooner they are gone.
	ctx, cancel = until(ctx, d.Gen.Process.Done())
	defer cancel()
	if len(begun) > 0 {
		d.complete(ctx, halves, begun)
	}
	for _, h := range halves {
		if err := divert.Quiet(ctx, h.fd.Num(), 0); err != nil {
			d.Host.Note(Warning, fmt.Sprintf("generation %d leaves connections in its accept queue: %v", d.Gen.N, err))
			return
		}
	}
}

// complete waits until each handshake in begun, which it empties, is complete or given up.
func (d *Drain) complete(ctx context.Context, halves []half, begun map[uint64]bool) {
	err := divert.WaitIdle(ctx, func() (int, error) {
		now := d.halfOpen(halves)
		maps.DeleteFunc(begun, func(id uint64, _ bool) bool { return !now[id] })
		return len(begun), nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		d.Host.Note(Info, fmt.Sprintf("%d clients have not completed their handshake with generation %d in %s: a later one answers them", len(begun), d.Gen.N, quietLimit))
	}
}

// halfOpen returns the identities of the connections that are not complete yet: each will come to the half that got its
// SYN, wherever the traffic goes by then.
func (d *Drain) halfOpen(halves []half) map[uint64]bool {
	var infos []sys.Socket
	for _, h := range halves {
		infos = append(infos, h.info)
	}
	found, err := divert.HalfOpen(infos)
	if err != nil {
		d.Host.Note(Warning, fmt.Sprintf("generation %d: %v", d.Gen.N, err))
	}
	return found
}

// half is the socket that a generation accepts on: of a steered pair, or one that it alone has; fd is nil where it is not held
// any more.
type half struct {
	fd   *sys.FD
	info sys.Socket
}

// steer sends what arrives from now on to the side of the pair that the next generation accepts on, whatever the mode: a pair
// stays one, and the switch steers it. It returns the halves that n accepts on, and the inodes of its other sockets that are
// to be kept from it.
func (d *Drain) steer(mode string) (halves []half, rest []uint64) {
	concerns := func(s *sockets.Socket) bool {
		return s.Origin != sockets.Pushed && (s.Alternate != nil || mode != config.DivertNone && (s.Info.Network == "udp" || !lossless(d.Gen.Config)))
	}
	has := d.has(concerns)
	d.Host.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(nil) {
			inode, err := s.Inode(d.Gen.Slot)
			if err != nil || !concerns(s) || !has(inode) {
				continue
			}
			if s.Alternate == nil {
				rest = append(rest, inode)
				continue
			}
			if err := SteerTo(s, d.To); err != nil {
				d.Host.Note(Warning, fmt.Sprintf("generation %d still gets connections of socket %s (%s): %v", d.Gen.N, s.Name, s.Info.Address, err))
				rest = append(rest, inode)
				continue
			}
			halves = append(halves, half{s.Slot(d.Gen.Slot), s.Info})
		}
	})
	return halves, rest
}

// has tells which of the sockets that suit, by inode, n has open: what a later configuration added is not its. If the kernel
// does not tell, all are taken for its own.
func (d *Drain) has(suits func(*sockets.Socket) bool) func(inode uint64) bool {
	var inodes []uint64
	d.Host.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(nil) {
			if inode, err := s.Inode(d.Gen.Slot); err == nil && suits(s) {
				inodes = append(inodes, inode)
			}
		}
	})
	if len(inodes) == 0 {
		return func(uint64) bool { return false }
	}
	pids, err := d.Gen.Tree.PIDs()
	if err != nil {
		return func(uint64) bool { return true }
	}
	open, err := probe.Held(pids, inodes)
	return func(inode uint64) bool {
		_, ok := open[inode]
		return ok || err != nil
	}
}

// fence takes those of n's sockets that it can from n, and returns their number and why others are left to it.
func (d *Drain) fence(inodes []uint64) (int, error) {
	pids, err := d.Gen.Tree.PIDs()
	if err != nil {
		return 0, err
	}
	fenced, left := divert.Fence(pids, inodes)
	fenced.Close() // for good: this generation only drains
	for _, inode := range inodes {
		if err := left[inode]; err != nil {
			return len(inodes) - len(left), fmt.Errorf("%d of %d sockets cannot be fenced: %w", len(left), len(inodes), err)
		}
	}
	return len(inodes), nil
}

// idle waits until n holds no connection, at most drain.idle.
func (d *Drain) idle(ctx context.Context) (string, error) {
	limit := d.Gen.Config.Drain.Idle
	if limit == 0 {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ctx, cancel = until(ctx, d.Advance)
	defer cancel()
	ctx, cancel = until(ctx, d.Hurry)
	defer cancel()
	left, began := 0, time.Now()
	err := divert.WaitIdle(ctx, func() (int, error) {
		pids, err := d.Gen.Tree.PIDs()
		if err != nil {
			return 0, err
		}
		left, err = divert.Connections(pids, d.sockets)
		return left, err
	})
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fmt.Sprintf("%d connections left after %s", left, time.Since(began).Round(10*time.Millisecond)), nil
	}
	return "", err
}

// leave sees to it that nothing waits in the listeners that n alone has when it closes them: the kernel would reset that.
// From now on who connects finds another listener of the address, or none.
func (d *Drain) leave(ctx context.Context) {
	var leaving []Leaving
	d.Host.Do(func(*sockets.Set) { leaving, d.Gen.Leaving = d.Gen.Leaving, nil })
	// Kept open any longer they would be sockets in which clients wait for nobody.
	defer closeLeaving(leaving)
	if len(leaving) == 0 || d.Skip {
		return
	}
	halves := d.hide(leaving, "tcp")
	begun := d.halfOpen(halves)
	d.pause(ctx, d.Gen.Config.Drain.Settle)
	d.quiet(ctx, halves, begun)
}

// hide keeps from n what arrives at those of the sockets that are of the network, and describes all.
func (d *Drain) hide(leaving []Leaving, network string) (halves []half) {
	for _, l := range leaving {
		info, err := sys.Inspect(l.Num())
		if err == nil {
			halves = append(halves, half{l.FD, info})
		}
		if err == nil && info.Network == network {
			err = divert.Hide(l.Num(), l.Place, l.Partner)
		}
		if err != nil {
			d.Host.Note(Warning, fmt.Sprintf("what comes to %s until generation %d closes it may be lost: %v", info.Address, d.Gen.N, err))
		}
	}
	return halves
}

// accepted describes the sockets from which n has accepted connections.
func accepted(held *sockets.Set, n *Generation) []sys.Socket {
	infos := slices.Clone(n.dropped)
	for _, s := range held.Ordered(nil) {
		infos = append(infos, s.Info)
		if s.Alternate != nil {
			if info, err := sys.Inspect(s.Alternate.Num()); err == nil {
				infos = append(infos, info)
			}
		}
	}
	return infos
}

// signal tells n to stop, and sees to it that all of it ends.
func (d *Drain) signal(ctx context.Context) (string, error) {
	g := d.Gen
	cfg := g.Config.Drain
	already := g.Signalled
	if d.leave(ctx); ctx.Err() != nil {
		return "", nil
	}
	d.Host.Do(func(*sockets.Set) {
		g.Signalling = true
		if g.Deadline.IsZero() {
			g.Deadline = time.Now().Add(cfg.Timeout)
		}
	})
	d.Changed()
	fault.Point("signalling")
	plan := worker.DrainPlan{Signal: cfg.Signal, Command: cfg.Command, Deadline: g.Deadline, Env: baseEnvironment(os.Environ())}
	plan.Told = func() {
		fault.Point("signalled")
		d.Host.Do(func(*sockets.Set) { g.Signalled = true })
		d.Changed()
	}
	note := func(text string) {
		d.Host.Note(Warning, fmt.Sprintf("generation %d (pid %d): %s", g.N, g.PID(), text))
	}
	if len(cfg.Command) > 0 {
		if err := d.expandCommand(&plan); err != nil {
			note(fmt.Sprintf("drain.command cannot be run, SIGTERM takes its place: %v", err))
			plan.Command, plan.Signal = nil, syscall.SIGTERM
		}
	}
	plan.Stage = func(next time.Time) { d.Host.Do(func(*sockets.Set) { g.NextStage = next }) }
	for _, e := range cfg.Escalate {
		plan.Escalate = append(plan.Escalate, worker.Step{Signal: e.Signal, Wait: e.Wait})
	}
	for _, s := range cfg.Success {
		plan.Success = append(plan.Success, worker.Status{Code: s.Code, Signal: s.Signal})
	}
	patient, cancel := until(ctx, d.Hurry)
	out := worker.Drain(patient, g.Process, g.Tree, plan, already, note)
	cancel()
	if out.Interrupted && ctx.Err() == nil {
		plan.Deadline, plan.Reason = time.Now(), "the drain was cut short"
		d.Host.Do(func(*sockets.Set) { g.Deadline = plan.Deadline })
		d.Changed()
		out = worker.Drain(ctx, g.Process, g.Tree, plan, true, note)
	}
	return Outcome(out), nil
}

// until derives a context that also ends when signal is closed.
func until(ctx context.Context, signal <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-signal:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

func (d *Drain) expandCommand(plan *worker.DrainPlan) error {
	values := valuesOf(d.Host, d.Gen)
	argv, err := expandAll(d.Gen.Config.Drain.Command, values)
	if err != nil {
		return err
	}
	for i := range argv {
		argv[i] = strings.ReplaceAll(argv[i], "${pid}", fmt.Sprint(d.Gen.PID()))
	}
	plan.Command = argv
	plan.Dir, err = config.Expand(d.Gen.Config.Worker.Directory, values)
	return err
}

// Outcome says in words how a drain ended.
func Outcome(out worker.Outcome) string {
	text := worker.ExitString(out.Exit)
	if out.Clean {
		text = "drained: " + text
	} else {
		text = "not clean: " + text
	}
	if out.Escalated != 0 {
		text += fmt.Sprintf(", after escalation to %s", sys.SignalName(out.Escalated))
	}
	if out.Leftover > 0 {
		text += fmt.Sprintf(", %d processes left over", out.Leftover)
	}
	return text
}
