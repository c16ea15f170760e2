package supervisor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/8265a91a/supervisor/internal/divert"
	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/probe"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
)

// steerToServing gives what arrives from now on at every steered pair to the half that the serving generation accepts
// on. The drain of its predecessor does so too, but there may be none: it died, or its drain.divert leaves pairs
// alone that an earlier configuration made.
func (d *Daemon) steerToServing() {
	if d.serving == nil {
		return // it died the moment it served; its replacement has the same slot
	}
	came := d.cameWithStarting()
	for _, s := range d.held.Ordered(nil) {
		if s.Alternate == nil || came(s) {
			continue
		}
		if err := handoff.SteerTo(s, d.serving.Slot); err != nil {
			d.Note(handoff.Warning, fmt.Sprintf("socket %s (%s): new connections may wait for nobody: %v", s.Name, s.Info.Address, err))
		}
	}
}

// cameWithStarting selects the pairs that the serving generation does not have, if another is starting.
func (d *Daemon) cameWithStarting() func(*sockets.Socket) bool {
	none := func(*sockets.Socket) bool { return false }
	if d.starting == nil {
		return none
	}
	var inodes []uint64
	for _, s := range d.held.Ordered(nil) {
		inodes = append(inodes, s.Inodes()...)
	}
	open, err := openBy(d.serving, inodes)
	if err != nil {
		return none
	}
	return func(s *sockets.Socket) bool {
		inode, err := s.Inode(d.serving.Slot)
		return err == nil && open[inode] == 0
	}
}

// vacateIdle bounds how long a handoff waits for an older generation to become idle, whatever its drain.idle allows, and
// vacateLimit how long for it to close its listeners after its signal.
const (
	vacateIdle  = 10 * time.Second
	vacateLimit = 5 * time.Second
)

// Vacate implements [handoff.Host]. With three reloads in quick succession the first generation may still wait for its
// connections to become idle, not told to stop, on the half of each pair that is needed again.
func (d *Daemon) Vacate(ctx context.Context, slot int) {
	advanced, end := false, time.Now().Add(vacateIdle)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		there, signalled, over := 0, false, time.Now().After(end)
		d.Do(func(held *sockets.Set) {
			there, signalled = d.occupants(held, slot)
			if over {
				d.advance(slot)
			}
		})
		switch {
		case there == 0:
			return
		case !advanced && (signalled || over):
			advanced, end = true, time.Now().Add(vacateLimit)
		case over:
			d.Note(handoff.Warning, fmt.Sprintf("generation %d still accepts on sockets that the next one needs, what it has not read when it closes them is lost", there))
			return
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// occupants returns a draining generation of slot that still accepts there, or 0, and whether all of them were told to stop.
func (d *Daemon) occupants(held *sockets.Set, slot int) (there int, signalled bool) {
	var inodes []uint64
	for _, s := range held.Ordered(nil) {
		if s.Alternate == nil {
			continue
		}
		if inode, err := s.Inode(slot); err == nil {
			inodes = append(inodes, inode)
		}
	}
	if len(inodes) == 0 {
		return 0, true
	}
	signalled = true
	for g := range d.drains {
		if g.Slot != slot {
			continue
		}
		if !g.Signalled {
			there, signalled = g.N, false
			continue
		}
		pids, err := g.Tree.PIDs()
		if err != nil {
			continue
		}
		if found, _ := probe.Listening(pids, inodes); len(found) > 0 {
			there = g.N
		}
	}
	return there, signalled
}

// advance ends the wait of the draining generations of slot for idle connections.
func (d *Daemon) advance(slot int) {
	for g, dr := range d.drains {
		if g.Slot == slot {
			dr.advance()
		}
	}
}

// rescueLimit is how long the generation that was started for connections left behind may take to accept them.
const rescueLimit = 5 * time.Second

// half is one half of a pair: its identity and the slot of the generations that accept there.
type half struct {
	cookie uint64
	slot   int
}

// rescue looks for connections that an earlier generation has left in the half of a pair on which nobody accepts, and
// replaces the worker: the next generation accepts there. Where that would not help, as the worker never accepts there,
// it does not, or not twice. Where none wait, those are watched for whose handshake is not complete yet.
func (d *Daemon) rescue() {
	d.unwatch()
	if d.serving == nil || d.op != nil || d.retry != nil || d.stopping {
		return // finish looks again
	}
	other := 1 - d.serving.Slot
	for _, g := range d.gens {
		if g.Slot == other && g.State == handoff.Draining && !g.Crashed {
			return
		}
	}
	var first *sockets.Socket
	var list []half
	var empty []int
	for _, s := range d.held.Ordered(nil) {
		if s.Alternate == nil {
			continue
		}
		at, fd := half{s.Cookie, other}, s.Slot(other).Num()
		if waiting, err := sys.Readable(fd); err != nil || !waiting {
			delete(d.left, at)
			empty = append(empty, fd)
			continue
		}
		tried, said := d.left[at]
		switch {
		case tried:
		case d.accepts(s):
			list = append(list, at)
			if first == nil {
				first = s
			}
		case !said:
			d.left[at] = false
			d.Note(handoff.Warning, fmt.Sprintf("connections wait at socket %s (%s), on which generation %d does not accept: no handoff is begun for them", s.Name, s.Info.Address, d.serving.N))
		}
	}
	if first == nil {
		d.watchFor(empty)
		return
	}
	d.Note(handoff.Warning, fmt.Sprintf("an earlier generation left connections waiting at socket %s (%s): the next generation takes them", first.Name, first.Info.Address))
	d.backoff.failed(d.serving.Age(), "connections were left behind")
	d.schedule(handoff.Replace, func(op *operation) {
		for _, at := range list {
			d.left[at] = true
		}
		go d.confirm(list, op)
	})
}

// watchFor has rescue called when something arrives at one of the borrowed sockets.
func (d *Daemon) watchFor(fds []int) {
	if len(fds) == 0 {
		return
	}
	watch, err := sys.NewWatch(fds)
	if err != nil {
		d.Note(handoff.Warning, "connections whose handshake is completed late may wait until the next reload: "+err.Error())
		return
	}
	d.watching = watch
	go func() {
		if watch.Wait() != nil {
			return // closed
		}
		d.Do(func(*sockets.Set) {
			if d.watching == watch {
				d.rescue()
			}
		})
	}()
}

func (d *Daemon) unwatch() {
	d.watching.Close()
	d.watching = nil
}

// accepts tells whether the serving generation accepts on its half of s. What cannot be told, and a worker that is busy
// with connections from there, counts as a yes.
func (d *Daemon) accepts(s *sockets.Socket) bool {
	pids, err := d.serving.Tree.PIDs()
	if err != nil {
		return true
	}
	inode, err := s.Inode(d.serving.Slot)
	if err != nil {
		return true
	}
	if found, err := probe.Listening(pids, []uint64{inode}); err != nil || len(found) > 0 {
		return true
	}
	n, err := divert.Connections(pids, []sys.Socket{s.Info})
	return err != nil || n > 0
}

// confirm waits until what a rescue was begun for is accepted: then the same half may be rescued again. If no generation
// came of it, it may at once.
func (d *Daemon) confirm(list []half, op *operation) {
	<-op.done
	if op.err != nil {
		d.Do(func(*sockets.Set) {
			for _, at := range list {
				delete(d.left, at)
			}
			d.rescue()
		})
		return
	}
	end := time.Now().Add(rescueLimit)
	for len(list) > 0 {
		over := time.Now().After(end)
		d.Do(func(held *sockets.Set) {
			before := len(list)
			list = slices.DeleteFunc(list, func(at half) bool {
				s := held.ByCookie(at.cookie)
				if s != nil {
					if waiting, err := sys.Readable(s.Slot(at.slot).Num()); err == nil && waiting {
						if over {
							d.Note(handoff.Warning, fmt.Sprintf("connections still wait at socket %s (%s): no further handoff is begun for them", s.Name, s.Info.Address))
						}
						return over
					}
				}
				delete(d.left, at)
				return true
			})
			if len(list) < before {
				d.rescue()
			}
		})
		select {
		case <-time.After(20 * time.Millisecond):
		case <-d.ended:
			return
		}
	}
}
