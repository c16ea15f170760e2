package supervisor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/fault"
	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// adopt takes over what the last supervisor left. Whatever cannot be trusted is one warning and the best safe
// outcome; a listening socket is never dropped because a note about it is broken.
func (d *Daemon) adopt(in *inherited, last *state) {
	if last != nil {
		d.keeper.sequence, d.keeper.lastServed = last.Sequence, last.Serving
		d.lastN, d.slot, d.traces = last.Generation, last.Slot, last.Handoffs
		d.since = last.Since
		d.keeper.handoffWanted = last.HandoffWanted // until it is done
	}
	d.keeper.bundle = in.bundle
	if in.bundle == 0 && last != nil && last.Bundle != 0 {
		// Over an execve the sockets come by themselves: the bundle in the store is replaced by a new one.
		d.keeper.bundle = last.Bundle
		d.keeper.have[d.keeper.bundleName(last.Bundle)] = 0
	}
	// If there was a state that could not be read, that has been said.
	if workers, sockets := len(in.workers), len(in.stored); len(in.states) == 0 && workers+sockets > 0 {
		d.Note(handoff.Warning, fmt.Sprintf("the FD store holds workers (%d) and sockets (%d) that no state describes: they are taken over as they are", workers, sockets))
	}
	undescribed := d.adoptGenerations(in, last)
	d.adoptSockets(in, last)
	d.findSlots(undescribed)
	d.dropUnnamed()
	d.adoptPushed(in, last)
	if last == nil && len(d.gens) == 0 {
		d.endForgotten()
	}
	d.endStrays()
	for _, s := range d.held.Ordered(nil) {
		if note := handoff.Heal(s); note != "" {
			d.Note(handoff.Warning, note)
		}
	}
}

// readStates chooses the newest state that can be read.
func (d *Daemon) readStates(list []*sys.FD) (newest *state) {
	for _, fd := range list {
		data, err := sys.ReadMemfd(fd.Num(), maxState)
		fd.Close()
		var s *state
		if err == nil {
			s, err = decodeState(data, d.opts.Name)
		}
		switch {
		case err != nil:
			d.Note(handoff.Warning, "the state of the last supervisor is not used: "+err.Error())
		case newest == nil:
			newest = s
		default: // it ended between writing one and removing the other, which happens
			d.Note(handoff.Info, fmt.Sprintf("the FD store holds two states, %d and %d: the newer is used", newest.Sequence, s.Sequence))
			if s.Sequence > newest.Sequence {
				newest = s
			}
		}
	}
	return newest
}

// adoptGenerations takes over the workers that live, and returns those that no state describes.
func (d *Daemon) adoptGenerations(in *inherited, last *state) (undescribed []*handoff.Generation) {
	listed := map[int]bool{}
	if last != nil {
		for _, gs := range last.Generations {
			listed[gs.N] = true
			d.adoptGeneration(in, last, gs)
		}
	}
	for _, n := range slices.Sorted(mapKeys(in.workers)) {
		if listed[n] {
			continue
		}
		// A pidfd without a state: the highest living one is taken for the serving generation.
		if last != nil {
			d.Note(handoff.Warning, fmt.Sprintf("the FD store holds a worker of generation %d that no state describes", n))
		}
		d.adoptGeneration(in, nil, generationState{N: n, State: handoff.Serving, Since: time.Now()})
		undescribed = append(undescribed, d.gens[len(d.gens)-1])
	}
	for _, left := range []map[int]*sys.FD{in.workers, in.notifies, in.binds} {
		for _, fd := range left {
			fd.Close()
		}
	}
	return undescribed
}

func mapKeys[V any](m map[int]V) func(func(int) bool) {
	return func(yield func(int) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// endTimeout is how long a start waits at most for the end of what it has killed.
const endTimeout = 5 * time.Second

// adoptGeneration takes over one generation; what it takes out of in is its own from then on.
func (d *Daemon) adoptGeneration(in *inherited, last *state, gs generationState) {
	g := handoff.NewGeneration(gs.N, gs.Slot, nil)
	g.State, g.Since, g.Began, g.Divert, g.Phase = gs.State, gs.Since, gs.Began, gs.Divert, gs.Phase
	g.Signalling, g.Signalled = gs.Signalling || gs.Signalled, gs.Signalled
	g.Status, g.Outcome, g.Ended, g.Adopted = gs.Status, gs.Outcome, gs.Ended, true
	g.Dir, g.LastPID, g.Unpushed = d.generationDir(g.N), gs.PID, gs.Unpushed
	d.lastN = max(d.lastN, g.N)
	if last != nil {
		g.Config = last.config(g.N, d.opts)
	}
	if gs.Deadline != 0 {
		g.Deadline = time.Now().Add(gs.Deadline - sys.MonotonicNow())
	}
	d.gens = append(d.gens, g)
	if g.State == handoff.Gone {
		return
	}
	exit := endOf(in.workers[gs.N])
	p, err := d.adoptProcess(in, gs)
	if errors.Is(err, os.ErrProcessDone) && d.outlived(gs) {
		p, err = worker.Ended(gs.PID, gs.StartTime, exit), nil
	}
	if err != nil {
		if !errors.Is(err, os.ErrProcessDone) {
			d.Note(handoff.Warning, fmt.Sprintf("the worker of generation %d is not adopted: %v", g.N, err))
		}
		d.endLeft(g, gs)
		g.State, g.Outcome, g.Ended = handoff.Gone, "ended while no supervisor watched", time.Now()
		if exit.Known {
			g.Outcome += ": " + worker.ExitString(exit)
		}
		return
	}
	g.Process = p
	g.Tree = worker.NewTree(p, d.Marker(g.N))
	if g.State == handoff.Starting && g.Config == nil {
		handoff.EndTree(g, endTimeout)
		g.State, g.Outcome, g.Ended = handoff.Gone, "killed: it was starting when the supervisor died, with a configuration that is lost", time.Now()
		p.Release()
		return
	}
	d.adoptNotify(in, g)
	if g.Intercept = in.binds[g.N]; g.Intercept != nil {
		delete(in.binds, g.N)
		d.keeper.have[prefixBind+strconv.Itoa(g.N)] = uint64(g.N)
	}
	if g.State == handoff.Starting {
		d.starting = g
	}
	if g.State == handoff.Serving {
		if d.serving != nil {
			d.serving.State = handoff.Draining
			d.Note(handoff.Warning, fmt.Sprintf("two generations were serving; %d drains, %d serves", d.serving.N, g.N))
		}
		d.serving, d.slot = g, g.Slot
		g.SetReady()
	}
}

// endOf tells how the process behind the stored pidfd, which may be nil, has ended, if somebody else has reaped it: nobody
// but that pidfd knows, and who fails to adopt it closes it.
func endOf(fd *sys.FD) (exit worker.Exit) {
	if fd == nil {
		return exit
	}
	if _, err := sys.PidfdPID(fd.Num()); errors.Is(err, os.ErrProcessDone) {
		exit, _ = sys.Reap(fd.Num())
	}
	return exit
}

// outlived tells whether a draining generation has processes left although its main process has ended: they may finish
// their work until the deadline. What a crash left behind may not.
func (d *Daemon) outlived(gs generationState) bool {
	return gs.State == handoff.Draining && !gs.Crashed && gs.identified() &&
		!worker.NewTree(worker.Ended(gs.PID, gs.StartTime, worker.Exit{}), d.Marker(gs.N)).Empty()
}

// identified tells whether it is known which process was the main one.
func (gs *generationState) identified() bool { return gs.PID != 0 && gs.StartTime != 0 }

// endLeft kills what a generation has left whose main process has ended, also what carries no marker, as servers do that
// overwrite their environment with a title: endStrays does not know it.
func (d *Daemon) endLeft(g *handoff.Generation, gs generationState) {
	if !gs.identified() {
		return
	}
	g.Process = worker.Ended(gs.PID, gs.StartTime, worker.Exit{})
	g.Tree = worker.NewTree(g.Process, d.Marker(g.N))
	if pids, err := g.Tree.PIDs(); err != nil || len(pids) > 0 {
		d.Note(handoff.Warning, fmt.Sprintf("the main process of generation %d (pid %d) ended while no supervisor watched, what it left behind is killed: processes %v", g.N, gs.PID, pids))
		handoff.EndTree(g, endTimeout)
	}
	g.Process, g.Tree = nil, nil
}

// adoptProcess finds the generation's main process by its pidfd or, where that is lost or somebody else's, by pid and
// start time.
func (d *Daemon) adoptProcess(in *inherited, gs generationState) (*worker.Process, error) {
	entry := prefixWorker + strconv.Itoa(gs.N)
	if fd := in.workers[gs.N]; fd != nil {
		delete(in.workers, gs.N)
		p, err := adoptPidfd(fd, gs)
		if err == nil {
			d.keeper.have[entry] = p.StartTime()
			return p, nil
		}
		if errors.Is(err, os.ErrProcessDone) {
			return nil, err
		}
		d.Note(handoff.Warning, fmt.Sprintf("FD store entry %s is not used and replaced: %v", entry, err))
	}
	if gs.State == handoff.Starting && gs.PID == 0 {
		fd, err := d.findMain(gs.N)
		if err != nil {
			return nil, os.ErrProcessDone
		}
		return adoptPidfd(fd, gs)
	}
	if !gs.identified() {
		return nil, os.ErrProcessDone
	}
	fd, err := sys.PidfdOpen(gs.PID)
	if err != nil {
		return nil, os.ErrProcessDone
	}
	p, err := adoptPidfd(fd, gs)
	if err != nil {
		return nil, os.ErrProcessDone // the pid is somebody else's by now
	}
	return p, nil
}

// adoptPidfd takes ownership of fd, which must be of the process that the state names.
func adoptPidfd(fd *sys.FD, gs generationState) (*worker.Process, error) {
	p, err := worker.Adopt(fd)
	if err != nil {
		return nil, err
	}
	if gs.PID != 0 && (p.PID() != gs.PID || gs.StartTime != 0 && p.StartTime() != 0 && p.StartTime() != gs.StartTime) {
		p.Release()
		return nil, fmt.Errorf("its pidfd is of process %d, not of %d", p.PID(), gs.PID)
	}
	return p, nil
}

func (d *Daemon) adoptNotify(in *inherited, g *handoff.Generation) {
	path := d.notifyPath(g.N)
	var err error
	if fd := in.notifies[g.N]; fd != nil {
		delete(in.notifies, g.N)
		g.Notify, err = worker.AdoptNotify(fd, path)
		d.keeper.have[prefixNotify+strconv.Itoa(g.N)] = uint64(g.N)
	} else {
		os.Remove(path)
		g.Notify, err = worker.ListenNotify(path)
	}
	if err != nil {
		d.Note(handoff.Warning, fmt.Sprintf("generation %d cannot notify any more: %v", g.N, err))
	}
}

// endStrays kills what carries this service's marker and belongs to no adopted generation: the remains of a handoff
// during which the supervisor died. A worker that serves may fork at any moment: who is there is listed before who
// belongs to it, and each is looked at again before it is killed. If anything cannot be told, nobody is.
func (d *Daemon) endStrays() {
	all := &worker.Tree{Marker: handoff.Marker(d.opts.Name, d.identity)}
	pids, err := all.PIDs()
	fault.Point("strays")
	known := map[int]bool{}
	var living []*worker.Tree
	for _, g := range d.gens {
		if g.State == handoff.Gone || err != nil {
			continue
		}
		var members []int
		members, err = g.Tree.PIDs()
		for _, pid := range members {
			known[pid] = true
		}
		living = append(living, g.Tree)
	}
	if err != nil {
		d.Note(handoff.Warning, "cannot look for processes that nobody knows: "+err.Error())
		return
	}
	for _, pid := range pids {
		if known[pid] {
			continue
		}
		if pidfd, err := sys.PidfdOpen(pid); err == nil {
			belongs := func(t *worker.Tree) bool { return t.Contains(pid) }
			if all.Contains(pid) && !slices.ContainsFunc(living, belongs) && sys.PidfdSignal(pidfd.Num(), syscall.SIGKILL) == nil {
				d.Note(handoff.Warning, fmt.Sprintf("process %d was left by a generation that never served, or has ended, and is killed", pid))
			}
			pidfd.Close()
		}
	}
}

// Marker implements [handoff.Host].
func (d *Daemon) Marker(n int) string { return handoff.MarkerOf(d.opts.Name, d.identity, n) }
