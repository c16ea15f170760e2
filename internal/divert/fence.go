package divert

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/8265a91a/supervisor/internal/probe"
	"github.com/8265a91a/supervisor/internal/sys"
)

// ErrNotEpoll says that a worker has a listener but waits for it in another way than epoll (poll, select, accept,
// io_uring), which cannot be taken from it.
var ErrNotEpoll = errors.New("does not wait with epoll")

// Fenced is what [Fence] took out of the epoll sets. It holds descriptors of the worker's: end it with Undo or Close.
type Fenced struct{ changes []sys.EpollChange }

// Fence takes the listeners with these inodes out of the epoll sets of the processes pids: what connects from then on
// stays in the backlog for somebody else who listens on the same socket. A thread that was woken before may still
// accept for a moment. On any error nothing is changed: [ErrNotEpoll], [ErrPermission].
//
// A process that registers a listener anew afterwards undoes it for itself (nginx with accept_mutex, HAProxy at
// its connection limit). Processes without any of the listeners are no error.
func Fence(pids []int, inodes []uint64) (*Fenced, error) {
	f := &Fenced{}
	waited, held := map[uint64]bool{}, map[uint64]int{}
	for _, pid := range pids {
		if err := f.collect(pid, inodes, waited, held); err != nil {
			f.Close()
			return nil, fmt.Errorf("fence: %w", err)
		}
	}
	for inode, pid := range held {
		if !waited[inode] {
			f.Close()
			return nil, fmt.Errorf("fence: process %d %w on socket %d", pid, ErrNotEpoll, inode)
		}
	}
	err := f.apply(true)
	if err == nil && len(f.changes) > 0 {
		err = nobodyWaits(pids, inodes)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("fence: %w", err), f.Undo())
	}
	return f, nil
}

// nobodyWaits finds the workers that wait in several ways.
func nobodyWaits(pids []int, inodes []uint64) error {
	waits, err := probe.Listening(pids, inodes)
	for inode, pid := range waits {
		return fmt.Errorf("process %d %w on socket %d", pid, ErrNotEpoll, inode)
	}
	return err
}

// Entries is the number of registrations that were taken out.
func (f *Fenced) Entries() int { return len(f.changes) }

// Undo puts every registration back as it was, with its events and data, and closes. Connections that waited meanwhile
// wake the worker at once.
func (f *Fenced) Undo() error {
	err := f.apply(false)
	f.Close()
	if err != nil {
		return fmt.Errorf("undo fence: %w", err)
	}
	return nil
}

// Close lets go of the worker's descriptors and leaves its epoll sets as they are.
func (f *Fenced) Close() {
	for _, c := range f.changes {
		c.Epoll.Close()
		c.Target.Close()
	}
	f.changes = nil
}

// apply makes the changes, and keeps only those which took effect.
func (f *Fenced) apply(remove bool) error {
	if len(f.changes) == 0 {
		return nil
	}
	for i := range f.changes {
		f.changes[i].Delete = remove
	}
	if err := sys.ChangeEpoll(f.changes); err != nil {
		f.Close()
		return err
	}
	var errs []error
	f.changes = slices.DeleteFunc(f.changes, func(c sys.EpollChange) bool {
		// Not there: another process shares the epoll set, or the worker was faster. There: the worker came back to it.
		if c.Err != nil && !errors.Is(c.Err, syscall.ENOENT) && !errors.Is(c.Err, syscall.EEXIST) {
			errs = append(errs, c.Err)
		}
		if c.Err != nil {
			c.Epoll.Close()
			c.Target.Close()
		}
		return c.Err != nil
	})
	return errors.Join(errs...)
}

// collect finds the registrations of one process and fetches the descriptors that are needed to change them.
func (f *Fenced) collect(pid int, inodes []uint64, waited map[uint64]bool, held map[uint64]int) error {
	var epolls []int
	numbers := map[uint64]int{}
	err := descriptors(pid, func(fd int, target string) {
		if target == "anon_inode:[eventpoll]" {
			epolls = append(epolls, fd)
		} else if inode, ok := socketInode(target); ok && slices.Contains(inodes, inode) {
			numbers[inode], held[inode] = fd, pid
		}
	})
	if err != nil || len(numbers) == 0 {
		return err
	}
	pidfd, err := sys.PidfdOpen(pid)
	if err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	defer pidfd.Close()
	for _, ep := range epolls {
		entries, err := sys.EpollEntries(pid, ep)
		if err != nil && !gone(err) {
			return err
		}
		for _, e := range entries {
			if !slices.Contains(inodes, e.Inode) {
				continue
			}
			if err := f.fetch(pidfd, ep, numbers[e.Inode], e); err != nil {
				if gone(err) || errors.Is(err, syscall.EBADF) {
					continue
				}
				return fmt.Errorf("process %d: %w", pid, err)
			}
			waited[e.Inode] = true
		}
	}
	return nil
}

// fetch duplicates the epoll set ep and the listener, which the process has under number (now perhaps another one than
// it had when it registered it).
func (f *Fenced) fetch(pidfd *FD, ep, number int, e sys.EpollEntry) error {
	epoll, err := sys.PidfdGetfd(pidfd.Num(), ep)
	if err != nil {
		return permission(err)
	}
	target, err := sys.PidfdGetfd(pidfd.Num(), number)
	if err != nil {
		epoll.Close()
		return permission(err)
	}
	if inode, err := sys.Inode(target.Num()); err != nil || inode != e.Inode {
		epoll.Close()
		target.Close()
		return errors.Join(fmt.Errorf("descriptor %d is not socket %d any more", number, e.Inode), err)
	}
	f.changes = append(f.changes, sys.EpollChange{Epoll: epoll, Target: target, Entry: e})
	return nil
}

func permission(err error) error {
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		return fmt.Errorf("%w: %w (another user id, kernel.yama.ptrace_scope, or a seccomp filter)", ErrPermission, err)
	}
	return err
}
