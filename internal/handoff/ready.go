package handoff

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/divert"
	"github.com/8265a91a/supervisor/internal/probe"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/getsocks"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// ready waits until the newcomer has proved that it serves.
func (h *Handoff) ready(ctx context.Context) (string, error) {
	g := h.New
	cfg := g.Config.Ready
	ctx, cancel := h.deadline(ctx, g, cfg.Timeout)
	defer cancel()
	conditions, still, err := h.conditions(g)
	if err != nil {
		return "", err
	}
	err = worker.AwaitReady(ctx, g.Process, conditions, cfg.Stable, still)
	h.pair.close()
	return "", err
}

// deadline is a time limit that the worker itself may extend.
func (h *Handoff) deadline(ctx context.Context, g *Generation, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	end := time.Now().Add(limit)
	timer := time.AfterFunc(limit, func() { cancel(fmt.Errorf("it was not ready after %s", limit)) })
	h.Host.Do(func(*sockets.Set) {
		g.extend = func(by time.Duration) {
			if later := time.Now().Add(by); later.After(end) {
				end = later
				timer.Reset(by)
			}
		}
	})
	return ctx, func() {
		h.Host.Do(func(*sockets.Set) { g.extend = nil })
		timer.Stop()
		cancel(nil)
	}
}

// conditions turns ready.when into what is waited for.
func (h *Handoff) conditions(g *Generation) (list []worker.Condition, still func() error, err error) {
	cfg := g.Config.Ready
	still = func() error { return nil }
	for _, when := range cfg.When {
		switch when {
		case config.ReadyListening:
			l := h.newListening(g)
			still, h.listens = l.still, l
			list = append(list, worker.Condition{Name: when, Wait: l.wait})
		case config.ReadyNotify:
			wait := g.awaitNotify
			if g.Adopted {
				wait = h.newListening(g).waitOr(g.ready)
			}
			list = append(list, worker.Condition{Name: when, Wait: wait})
		case config.ReadyHAProxy:
			path, err := config.Expand(cfg.Socket, valuesOf(h.Host, g))
			if err != nil {
				return nil, nil, fmt.Errorf("ready.socket: %w", err)
			}
			list = append(list, worker.Condition{Name: when, Wait: func(ctx context.Context) error { return awaitHAProxy(ctx, g, path) }})
		case config.ReadyCommand:
			values := valuesOf(h.Host, g)
			argv, err := expandAll(cfg.Command, values)
			if err != nil {
				return nil, nil, err
			}
			pid := strconv.Itoa(g.PID())
			for i := range argv {
				argv[i] = strings.ReplaceAll(argv[i], "${pid}", pid)
			}
			env := append(baseEnvironment(os.Environ()), "WORKER_PID="+pid)
			dir, err := config.Expand(g.Config.Worker.Directory, values)
			if err != nil {
				return nil, nil, fmt.Errorf("worker.directory: %w", err)
			}
			list = append(list, worker.CommandReady(argv, env, dir))
		case config.ReadyFile:
			file, err := config.Expand(cfg.File, valuesOf(h.Host, g))
			if err != nil {
				return nil, nil, err
			}
			list = append(list, worker.FileReady(file, g.Since))
		case config.ReadyDelay:
			list = append(list, worker.DelayReady(cfg.Delay))
		}
	}
	return list, still, nil
}

func (g *Generation) awaitNotify(ctx context.Context) error {
	select {
	case <-g.ready:
		return nil
	case <-ctx.Done():
		return errors.New("it never sent READY=1")
	}
}

// awaitHAProxy waits until the stats socket at path answers for the newcomer: binding is complete before its CLI
// answers, and it renames its own socket over the old one's.
func awaitHAProxy(ctx context.Context, g *Generation, path string) error {
	var last error
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		pid, err := getsocks.PID(attempt, path)
		cancel()
		switch {
		case err != nil:
			last = err
		case pid == g.PID() || g.Tree.Contains(pid):
			return nil
		default:
			last = fmt.Errorf("%s still answers for pid %d", path, pid)
		}
		if !sleep(ctx, wait) {
			return last
		}
	}
}

// listening is the condition that needs no help from the worker: the kernel shows that it waits on our sockets.
type listening struct {
	g       *Generation
	inodes  []uint64
	sockets map[uint64]*sockets.Socket // by inode; copies without descriptors
	heal    func()
}

// mayLeave tells whether a newcomer need not take the socket, since nobody named it.
func mayLeave(s *sockets.Socket) bool { return s.Origin == sockets.Fetched }

func (h *Handoff) newListening(g *Generation) *listening {
	l := &listening{g: g, sockets: map[uint64]*sockets.Socket{}, heal: h.heal}
	unconfigured := Unconfigured(g.Config)
	h.Host.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(nil) {
			// A pushed one is the workers' affair. What was fetched from HAProxy the next one may leave out, and says so.
			if s.Origin == sockets.Pushed || mayLeave(s) && g.Config.Handoff.Fetch != config.FetchPidfd || unconfigured(s) {
				continue
			}
			if inode, err := s.Inode(g.Slot); err == nil {
				l.sockets[inode] = &sockets.Socket{Meta: s.Meta, Info: s.Info}
				l.inodes = append(l.inodes, inode)
			}
		}
	})
	return l
}

// look is nil if every socket is waited on, or excused. left is the number of those that the newcomer may leave out and
// has not taken, or not yet.
func (l *listening) look(excused func(pids []int, info sys.Socket) bool) (left int, err error) {
	pids, err := l.g.Tree.PIDs()
	if err != nil {
		return 0, err
	}
	found, err := probe.Listening(pids, l.inodes)
	if err != nil {
		return 0, err
	}
	// With a convention that passes descriptors it has them from the start, and perhaps does nothing.
	held, err := probe.Held(pids, slices.DeleteFunc(slices.Clone(l.inodes), func(inode uint64) bool { return found[inode] != 0 }))
	if err != nil {
		return 0, err
	}
	waits := len(found) > 0
	for _, inode := range l.inodes {
		s := l.sockets[inode]
		switch {
		case found[inode] != 0 || replaced(s):
		case mayLeave(s) && held[inode] == 0:
			left++
		case excused(pids, s.Info):
			waits = true
		default:
			return 0, fmt.Errorf("it does not listen on socket %q, which it was given", cmp.Or(s.FDName, s.Name))
		}
	}
	if !waits {
		return left, lookOwn(pids, excused)
	}
	return left, nil
}

// lookOwn is nil if the processes wait on some listener of their own, or are excused.
func lookOwn(pids []int, excused func(pids []int, info sys.Socket) bool) error {
	own, err := probe.TakeListeners(pids, func(uint64) bool { return true })
	inodes := make([]uint64, len(own))
	busy := false
	for i, l := range own {
		inodes[i] = l.Inode
		info, inspect := sys.Inspect(l.Dup.Num())
		busy = busy || inspect == nil && excused(pids, info)
		l.Dup.Close()
	}
	if err != nil || busy {
		return err
	}
	if len(own) == 0 {
		return errors.New("it listens on nothing")
	}
	found, err := probe.Listening(pids, inodes)
	if len(found) > 0 {
		return nil
	}
	if err == nil {
		err = errors.New("it has sockets of its own, and waits on none of them")
	}
	return err
}

// healEvery is how long a socket may be broken that a newcomer has shut down under a worker that serves on it, as
// Dovecot does with one that its configuration does not name.
const healEvery = 50 * time.Millisecond

func (l *listening) wait(ctx context.Context) error {
	var healed time.Time
	var gap gap
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		left, err := l.look(func([]int, sys.Socket) bool { return false })
		switch {
		case err != nil:
			gap.end()
		case gap.over(left, time.Now()):
			return nil
		default:
			err = fmt.Errorf("it has not taken %d of the sockets that its predecessor listens on, or not yet", left)
		}
		if time.Since(healed) > healEvery {
			l.heal()
			healed = time.Now()
		}
		if !sleep(ctx, wait) {
			return err
		}
	}
}

// leavePatience is how long nothing must happen until a socket that a newcomer has not taken counts as left out: a worker
// binds one address after the other.
const leavePatience = time.Second

// gap is the time for which a newcomer has been ready, but for sockets that it need not take.
type gap struct {
	left  int
	since time.Time
}

func (g *gap) end() { *g = gap{} }

// over tells whether it has been long enough; with nothing left out it always has.
func (g *gap) over(left int, now time.Time) bool {
	if g.since.IsZero() || left != g.left {
		*g = gap{left, now}
	}
	return left == 0 || now.Sub(g.since) >= leavePatience
}

// busyPatience is for a worker between two connections.
const busyPatience = 2 * time.Second

// still is nil if a worker that has been listening does so within busyPatience, or has connections from the socket: the
// old one's clients may have been its already, and one that accepts when it has answered is not seen waiting.
func (l *listening) still() error {
	timeout := time.After(busyPatience)
	for {
		_, err := l.look(busy)
		if err == nil {
			return nil
		}
		select {
		case <-l.g.Process.Done():
			return fmt.Errorf("%w: %s", worker.ErrExited, worker.ExitString(l.g.Process.Exit()))
		case <-timeout:
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// busy reports whether the processes hold connections that were accepted from the socket.
func busy(pids []int, info sys.Socket) bool {
	n, err := divert.Connections(pids, []sys.Socket{info})
	return err == nil && n > 0
}

// adoptedPatience is how long a starting worker that was adopted must have been listening.
const adoptedPatience = time.Second

// waitOr waits for READY=1 of a worker that may have said it to the last supervisor, which died without passing it on:
// that it has been listening for a moment will do, too.
func (l *listening) waitOr(ready <-chan struct{}) func(context.Context) error {
	return func(ctx context.Context) error {
		waiting, cancel := context.WithCancel(ctx)
		defer cancel()
		listens := make(chan struct{})
		go func() {
			defer close(listens)
			if l.wait(waiting) == nil {
				sleep(waiting, adoptedPatience)
			}
		}()
		select {
		case <-ready:
			cancel()
			<-listens
			return nil
		case <-listens:
		}
		if ctx.Err() != nil {
			return errors.New("it never sent READY=1 and does not listen")
		}
		return l.still()
	}
}

// sleep waits for d, or until ctx ends, which it reports as false.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
