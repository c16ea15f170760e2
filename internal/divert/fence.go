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
// accept for a moment. A listener that cannot be taken from each of them is left to all, and left says why:
// [ErrNotEpoll], [ErrPermission].
//
// A process that registers a listener anew afterwards undoes it for itself (nginx with accept_mutex, HAProxy at
// its connection limit). Processes without any of the listeners are no error.
func Fence(pids []int, inodes []uint64) (f *Fenced, left map[uint64]error) {
	f, left = &Fenced{}, map[uint64]error{}
	waited, held := map[uint64]bool{}, map[uint64]int{}
	for _, pid := range pids {
		f.collect(pid, inodes, waited, held, left)
	}
	for inode, pid := range held {
		if !waited[inode] {
			leave(left, inode, fmt.Errorf("process %d %w on socket %d", pid, ErrNotEpoll, inode))
		}
	}
	f.without(left).Close()
	for _, c := range f.apply(true) {
		leave(left, c.Entry.Inode, c.Err)
	}
	f.nobodyWaits(pids, left)
	undo := f.without(left)
	for _, c := range undo.apply(false) {
		left[c.Entry.Inode] = errors.Join(left[c.Entry.Inode], fmt.Errorf("undo: %w", c.Err))
	}
	undo.Close()
	return f, left
}

// leave notes why a listener is not fenced, once.
func leave(left map[uint64]error, inode uint64, err error) {
	if left[inode] == nil {
		left[inode] = fmt.Errorf("fence: %w", err)
	}
}

// nobodyWaits finds the workers that wait in several ways.
func (f *Fenced) nobodyWaits(pids []int, left map[uint64]error) {
	var inodes []uint64
	for _, c := range f.changes {
		inodes = append(inodes, c.Entry.Inode)
	}
	if len(inodes) == 0 {
		return
	}
	waits, err := probe.Listening(pids, inodes)
	for _, inode := range inodes {
		if pid, ok := waits[inode]; ok {
			leave(left, inode, fmt.Errorf("process %d %w on socket %d", pid, ErrNotEpoll, inode))
		} else if err != nil {
			leave(left, inode, err)
		}
	}
}

// without takes the changes of the listeners in left out of f.
func (f *Fenced) without(left map[uint64]error) *Fenced {
	out := &Fenced{}
	f.changes = slices.DeleteFunc(f.changes, func(c sys.EpollChange) bool {
		if left[c.Entry.Inode] != nil {
			out.changes = append(out.changes, c)
			return true
		}
		return false
	})
	return out
}

// Entries is the number of registrations that were taken out.
func (f *Fenced) Entries() int { return len(f.changes) }

// Undo puts every registration back as it was, with its events and data, and closes. Connections that waited meanwhile
// wake the worker at once.
func (f *Fenced) Undo() error {
	var errs []error
	for _, c := range f.apply(false) {
		errs = append(errs, c.Err)
	}
	f.Close()
	if err := errors.Join(errs...); err != nil {
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

// apply makes the changes, keeps only those which took effect, and returns those which failed.
func (f *Fenced) apply(remove bool) (failed []sys.EpollChange) {
	if len(f.changes) == 0 {
		return nil
	}
	for i := range f.changes {
		f.changes[i].Delete = remove
	}
	err := sys.ChangeEpoll(f.changes)
	f.changes = slices.DeleteFunc(f.changes, func(c sys.EpollChange) bool {
		if err != nil {
			c.Err = err // none was made
		}
		// Not there: another process shares the epoll set, or the worker was faster. There: the worker came back to it.
		if c.Err != nil && !errors.Is(c.Err, syscall.ENOENT) && !errors.Is(c.Err, syscall.EEXIST) {
			failed = append(failed, c)
		}
		if c.Err != nil {
			c.Epoll.Close()
			c.Target.Close()
		}
		return c.Err != nil
	})
	return failed
}

// collect finds the registrations of one process and fetches the descriptors that are needed to change them. What stands in
// the way of that is in left.
func (f *Fenced) collect(pid int, inodes []uint64, waited map[uint64]bool, held map[uint64]int, left map[uint64]error) {
	var epolls []int
	numbers := map[uint64]int{}
	err := descriptors(pid, func(fd int, target string) {
		if target == "anon_inode:[eventpoll]" {
			epolls = append(epolls, fd)
		} else if inode, ok := socketInode(target); ok && slices.Contains(inodes, inode) {
			numbers[inode], held[inode] = fd, pid
		}
	})
	if err != nil { // it may have any of them
		for _, inode := range inodes {
			leave(left, inode, err)
		}
		return
	}
	if len(numbers) == 0 {
		return
	}
	all := func(err error) {
		for inode := range numbers {
			leave(left, inode, fmt.Errorf("process %d: %w", pid, err))
		}
	}
	pidfd, err := sys.PidfdOpen(pid)
	if err != nil {
		if !gone(err) {
			all(err)
		}
		return
	}
	defer pidfd.Close()
	for _, ep := range epolls {
		entries, err := sys.EpollEntries(pid, ep)
		if err != nil && !gone(err) {
			all(err)
		}
		for _, e := range entries {
			number, ok := numbers[e.Inode]
			if !ok {
				continue
			}
			if err := f.fetch(pidfd, ep, number, e); err != nil {
				if !gone(err) && !errors.Is(err, syscall.EBADF) {
					leave(left, e.Inode, fmt.Errorf("process %d: %w", pid, err))
				}
				continue
			}
			waited[e.Inode] = true
		}
	}
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
