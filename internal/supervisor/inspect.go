package supervisor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/internal/divert"
	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/probe"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
)

// The daemon answers the control socket: these methods run on the goroutine of a client.
var _ control.Handler = (*Daemon)(nil)

// Reload implements [control.Handler].
func (d *Daemon) Reload(ctx context.Context, drained bool, events func(control.Event)) control.Result {
	var op *operation
	err := errStopping
	gone := false // set on the loop, after which events is not called any more
	d.Do(func(*sockets.Set) {
		waiting := d.op != nil
		if op, err = d.requestReload(); err != nil {
			return
		}
		if waiting {
			events(control.Event{Type: control.TypeNote, Text: "another handoff is under way: this reload follows it"})
		}
		op.onStep = append(op.onStep, func(t handoff.Timed) {
			if !gone {
				step := stepOf(t)
				events(control.Event{Type: control.TypeStep, Step: &step})
			}
		})
	})
	if err != nil {
		return control.Result{Error: "cannot reload " + d.opts.Name + ": " + err.Error()}
	}
	defer d.Do(func(*sockets.Set) { gone = true })
	wait := op.done
	if drained {
		wait = op.drained
	}
	select {
	case <-wait:
	case <-ctx.Done():
		var replacing bool
		d.Do(func(*sockets.Set) { replacing = d.replacing })
		if replacing {
			return control.Result{Error: "the supervisor's binary is replaced; the reload and its drain go on, and this client cannot wait for them any longer", Hint: "supervisor status " + d.opts.Name}
		}
		d.Note(handoff.Warning, "the client that asked for a reload has gone; the reload goes on")
		return control.Result{Error: "the client has gone"}
	}
	<-op.done
	return d.result(op)
}

func (d *Daemon) result(op *operation) control.Result {
	r := control.Result{OK: op.err == nil}
	if op.handoff != nil {
		r.Took = control.Duration(op.handoff.Trace.Took)
	}
	d.Do(func(*sockets.Set) {
		switch {
		case op.err == nil:
			r.Generation, r.PID = op.handoff.New.N, op.handoff.New.PID()
		case d.serving != nil:
			r.Generation, r.PID = d.serving.N, d.serving.PID()
		}
		if op.err != nil && op.handoff != nil {
			r.Hint = d.hintFor(op)
		}
	})
	if op.err != nil {
		r.Error = "cannot reload " + d.opts.Name + ": " + op.err.Error()
		var f *handoff.Failure
		if errors.As(op.err, &f) {
			r.Output = f.Words
			if f.Words == "" && len(f.PIDs) > 0 && StderrIsJournal() && os.Geteuid() != 0 {
				r.Failed = &control.Failed{PIDs: f.PIDs, Since: f.Since}
			}
		}
	}
	return r
}

func stepOf(t handoff.Timed) control.Step {
	return control.Step{Name: t.Name, Took: control.Duration(t.Took), Err: t.Error, Note: t.Note}
}

// Status implements [control.Handler].
func (d *Daemon) Status() (s control.Status) {
	d.Do(func(*sockets.Set) {
		s = control.Status{
			V: control.Version, Name: d.opts.Name, PID: os.Getpid(), Version: d.opts.Version,
			Since: d.since, Started: d.started, State: d.state(),
			Config:  control.ConfigFile{Path: d.opts.ConfigPath},
			Sockets: d.held.Len(), Queued: d.queued != nil, Warnings: d.warnings.all(),
		}
		if d.config != nil {
			s.Config.Sum = d.config.Sum
		}
		if d.keeper.store != nil {
			s.Stored, s.StoreMax = d.keeper.store.Len(), d.keeper.limit
		}
		for _, g := range slices.Backward(d.gens) {
			s.Generations = append(s.Generations, generationOf(g))
		}
		for _, t := range slices.Backward(d.traces) {
			s.Handoffs = append(s.Handoffs, traceOf(t))
		}
		if d.retry != nil && d.serving == nil && d.op == nil {
			s.Restart = &control.Restart{At: d.retryAt, Attempt: d.backoff.attempts, Reason: d.backoff.reason}
		}
	})
	if data, err := os.ReadFile(d.opts.ConfigPath); err != nil {
		s.Config.Error = err.Error()
	} else if s.Config.Sum != "" {
		sum := sha256.Sum256(data)
		s.Config.Changed = hex.EncodeToString(sum[:]) != s.Config.Sum
	}
	return s
}

// state is the service's state in one word.
func (d *Daemon) state() string {
	switch {
	case d.stopping:
		return "stopping"
	case d.op != nil && (d.op.kind == handoff.Reload || d.op.kind == handoff.Replace):
		return "reloading"
	case d.op != nil && d.op.kind == handoff.Start:
		return "starting"
	case d.serving != nil:
		return "serving"
	}
	return "restarting"
}

func generationOf(g *handoff.Generation) control.Generation {
	c := control.Generation{
		N: g.N, State: string(g.State), Since: g.Since, Slot: g.Slot, Adopted: g.Adopted, Divert: g.Divert,
		Phase: g.Phase, Status: g.Status, Exit: g.Outcome, Ended: g.Ended,
		PID: g.PID(),
	}
	if g.Says != "" && g.State != handoff.Gone {
		c.Note = "says that it is " + g.Says
	}
	if g.State == handoff.Draining {
		c.Deadline = g.Deadline
		if !g.NextStage.IsZero() {
			c.Deadline = g.NextStage
		}
	}
	return c
}

func traceOf(t *handoff.Trace) control.Trace {
	c := control.Trace{
		ID: t.ID, Kind: string(t.Kind), Order: t.Order, Started: t.Started, Took: control.Duration(t.Took),
		OK: t.OK, Error: t.Error, From: t.From, To: t.To,
	}
	for _, s := range t.Steps {
		c.Steps = append(c.Steps, stepOf(s))
	}
	return c
}

// FDs implements [control.Handler]: the held sockets, what the kernel says of them, and who has them open.
func (d *Daemon) FDs() control.FDs {
	f := control.FDs{V: control.Version, Name: d.opts.Name}
	generations := map[int]int{} // by pid
	var inodes []uint64
	pairs := map[uint64]uint64{} // inodes of both halves
	d.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(nil) {
			f.Sockets = append(f.Sockets, d.heldOf(s))
			own := s.Inodes()
			inodes = append(inodes, own...)
			if len(own) > 1 {
				pairs[own[0]] = own[1]
			}
		}
		for _, p := range d.pushed {
			f.Sockets = append(f.Sockets, control.Held{Name: p.Name, Network: "blob", Inode: p.identity, Origin: string(sockets.Pushed), Stored: d.stored(p.entry())})
		}
		for _, g := range d.gens {
			if g.State != handoff.Gone && g.Process != nil {
				if pids, err := g.Tree.PIDs(); err == nil {
					for _, pid := range pids {
						generations[pid] = g.N
					}
				}
			}
		}
	})
	holders, err := probe.Holders(inodes)
	if err != nil {
		d.Note(handoff.Warning, "cannot tell who holds the sockets: "+err.Error())
	}
	for i := range f.Sockets {
		inode := f.Sockets[i].Inode
		for _, pid := range append(holders[inode], holders[pairs[inode]]...) {
			if pid != os.Getpid() {
				f.Sockets[i].Holders = append(f.Sockets[i].Holders, control.Holder{PID: pid, Generation: generations[pid], Comm: comm(pid)})
			}
		}
	}
	return f
}

func (d *Daemon) heldOf(s *sockets.Socket) control.Held {
	info, err := sys.Inspect(s.FD.Num())
	if err != nil {
		info = s.Info
	}
	h := control.Held{
		Name: s.Name, Network: info.Network, Address: s.Info.Address, Listening: info.Listening, Cookie: s.Cookie, Inode: info.Inode,
		Origin: string(s.Origin), Stored: d.stored(prefixSocket + s.Name), Nonblock: info.Nonblock,
		Device: info.Device, Namespace: s.Namespace, Interface: s.Interface,
	}
	if info.Listening {
		if used, limit, err := divert.Queue(s.FD.Num()); err == nil {
			h.BacklogUsed, h.BacklogMax = used, limit
		}
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"reuseport", info.ReusePort}, {"v6only", info.V6Only}, {"freebind", info.FreeBind},
		{"paired", s.Alternate != nil}, {"unclaimed", s.Unclaimed},
	} {
		if f.set {
			h.Flags = append(h.Flags, f.name)
		}
	}
	return h
}

// stored tells whether systemd has the entry, by itself or in the bundle.
func (d *Daemon) stored(name string) bool {
	if d.keeper.store == nil {
		return false
	}
	_, single := d.keeper.have[name]
	return single || d.keeper.inBundle[name]
}

// holds tells whether a process of g has the socket open. When /proc does not tell, it says yes: what is in doubt is kept.
func (d *Daemon) holds(g *handoff.Generation, inode uint64) bool {
	open, err := openBy(g, []uint64{inode})
	return err != nil || open[inode] != 0
}

// openBy tells which of the sockets, by inode, the generation has open, and in which process.
func openBy(g *handoff.Generation, inodes []uint64) (map[uint64]int, error) {
	pids, err := g.Tree.PIDs()
	if err != nil {
		return nil, err
	}
	return probe.Held(pids, inodes)
}

func comm(pid int) string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
