package handoff

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/fault"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// markerKey is the environment variable by which every process of a generation is known, orphans included.
const markerKey = "SUPERVISOR_GENERATION"

// Marker is the beginning of the environment entry that every process of a service carries. identity is a secret of
// the service: whoever carries it was started by its supervisor.
func Marker(name, identity string) string { return markerKey + "=" + name + "/" + identity + "/" }

// MarkerOf is the entry that every process of generation n carries.
func MarkerOf(name, identity string, n int) string { return fmt.Sprint(Marker(name, identity), n) }

// spawn starts generation n+1 with all sockets.
func (h *Handoff) spawn(ctx context.Context) (string, error) {
	g, err := h.Host.Begin(h.Config, h.slot())
	if err != nil {
		return "", err
	}
	h.New = g
	fault.Point("begun")
	if err := h.prepareSockets(); err != nil {
		return "", err
	}
	cmd, err := h.command(g)
	if err != nil {
		return "", err
	}
	p, err := worker.Start(cmd)
	h.pair.started()
	if err != nil {
		return "", err
	}
	fault.Point("spawned")
	h.Host.Do(func(*sockets.Set) {
		g.Process = p
		g.Tree = worker.NewTree(p, h.Host.Marker(g.N))
	})
	if h.bindings != nil {
		notify, err := h.bindings.receive(ctx)
		if err != nil {
			return "", err
		}
		h.Host.Do(func(*sockets.Set) { g.Intercept = notify })
	}
	if err := h.tolerate(h.Host.Spawned(g)); err != nil {
		return "", err
	}
	return fmt.Sprintf("pid %d", p.PID()), nil
}

// slot alternates so that a steered pair has one side for each of two generations. A worker that takes the place of
// a dead one keeps its side: what waits there must be served.
func (h *Handoff) slot() int {
	if h.Old == nil {
		return h.Host.LastSlot()
	}
	return 1 - h.Old.Slot
}

// prepareSockets repairs and sets what the newcomer must find: the listening state, and the modes that the
// configuration names. Nothing else of a shared socket is touched.
func (h *Handoff) prepareSockets() error {
	var err error
	h.Host.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(nil) {
			fd := s.Slot(h.New.Slot)
			if was, err := sys.Nonblock(fd.Num()); err == nil { // also for what the newcomer itself sets
				h.restore = append(h.restore, func() { _ = sys.SetNonblock(fd.Num(), was) })
			}
			if s.Nonblock != nil {
				err = errors.Join(err, sys.SetNonblock(fd.Num(), *s.Nonblock))
			}
		}
	})
	h.heal()
	return err
}

// heal repairs every socket that a worker broke.
func (h *Handoff) heal() {
	h.Host.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(nil) {
			if note := Heal(s); note != "" {
				h.Host.Note(Warning, note)
			}
		}
	})
}

// dismissal is how long a newcomer that is given up may take to answer what it has accepted.
const dismissal = 5 * time.Second

// dismiss lets a newcomer that may have accepted connections end by itself, as a drained worker does. Of steered pairs it
// has accepted none; sockets that are none it shares with the old worker, which take turns. A worker that is not known to
// be ready may not know the signal yet, and ends by it: so it would by SIGKILL.
func (h *Handoff) dismiss(g *Generation) {
	shares := false
	h.Host.Do(func(held *sockets.Set) {
		shares = slices.ContainsFunc(held.Ordered(nil), func(s *sockets.Socket) bool {
			return s.Alternate == nil && s.Origin != sockets.Pushed
		})
	})
	if !shares || g.Process.Signal(cmp.Or(g.Config.Drain.Signal, syscall.SIGTERM)) != nil {
		return
	}
	timer := time.NewTimer(min(dismissal, g.Config.Drain.Timeout))
	defer timer.Stop()
	select {
	case <-g.Process.Done():
	case <-timer.C:
	}
}

// kill undoes spawn: the whole process tree of the newcomer ends, and is waited for.
func (h *Handoff) kill() {
	g := h.New
	if g == nil {
		return
	}
	outcome := "never started"
	if g.Process != nil {
		outcome = "killed: the handoff failed"
		select {
		case <-g.Process.Done():
			outcome = worker.ExitString(g.Process.Exit())
		default:
			h.dismiss(g)
		}
		EndTree(g, 5*time.Second)
		h.heal()
	}
	h.Host.Discard(g, outcome)
}

// EndTree kills every process of the generation and waits for their end, at most for limit.
func EndTree(g *Generation, limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	g.Process.Signal(syscall.SIGKILL)
	for ctx.Err() == nil && !g.Tree.Empty() {
		g.Tree.Signal(syscall.SIGKILL)
		wait, stop := context.WithTimeout(ctx, 100*time.Millisecond) // what was forked meanwhile is killed next time
		g.Tree.Wait(wait)
		stop()
	}
	select {
	case <-g.Process.Done():
	case <-ctx.Done():
	}
}
