package handoff

import (
	"context"
	"errors"
	"fmt"
	"os"
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
			still = l.still
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
	g      *Generation
	names  map[uint64]string // by inode
	inodes []uint64
	infos  map[uint64]sys.Socket
	heal   func()
}

func (h *Handoff) newListening(g *Generation) *listening {
	l := &listening{g: g, names: map[uint64]string{}, infos: map[uint64]sys.Socket{}, heal: h.heal}
	unconfigured := Unconfigured(g.Config)
	h.Host.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(nil) {
			// A fetched socket may be left out by a new configuration: reconcile drops it. A pushed one is the workers' affair.
			if s.Origin == sockets.Fetched || s.Origin == sockets.Pushed || unconfigured(s) {
				continue
			}
			if inode, err := s.Inode(g.Slot); err == nil {
				l.names[inode], l.infos[inode] = s.FDName, s.Info
				l.inodes = append(l.inodes, inode)
			}
		}
	})
	return l
}

func (l *listening) check() error { return l.look(func([]int, uint64) bool { return false }) }

// look is nil if every socket is waited on, or excused.
func (l *listening) look(excused func(pids []int, inode uint64) bool) error {
	pids, err := l.g.Tree.PIDs()
	if err != nil {
		return err
	}
	if len(l.inodes) == 0 {
		own, err := probe.ListeningSockets(pids)
		if err == nil && len(own) == 0 {
			err = errors.New("it listens on nothing")
		}
		return err
	}
	found, err := probe.Listening(pids, l.inodes)
	if err != nil {
		return err
	}
	for _, inode := range l.inodes {
		if _, ok := found[inode]; !ok && !excused(pids, inode) {
			return fmt.Errorf("it does not listen on socket %q, which it was given", l.names[inode])
		}
	}
	return nil
}

// healEvery is how long a socket may be broken that a newcomer has shut down under a worker that serves on it, as
// Dovecot does with one that its configuration does not name.
const healEvery = 50 * time.Millisecond

func (l *listening) wait(ctx context.Context) error {
	var healed time.Time
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		err := l.check()
		if err == nil {
			return nil
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

// busyPatience is for a worker between two connections.
const busyPatience = 2 * time.Second

// still is nil if a worker that has been listening does so within busyPatience, or has connections from the socket: the
// old one's clients may have been its already, and one that accepts when it has answered is not seen waiting.
func (l *listening) still() error {
	timeout := time.After(busyPatience)
	for {
		err := l.look(l.busy)
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

// busy reports whether the worker holds connections that it accepted from the socket.
func (l *listening) busy(pids []int, inode uint64) bool {
	n, err := divert.Connections(pids, []sys.Socket{l.infos[inode]})
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
