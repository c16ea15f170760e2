package probe

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"

	"github.com/8265a91a/supervisor/internal/sys"
)

// Found is a socket in another process.
type Found struct {
	PID, FD int
	Inode   uint64
	// Dup is a duplicate, where it was asked for.
	Dup *sys.FD
}

// ListeningSockets returns the sockets of pids at which peers arrive: listening ones, and bound datagram sockets
// without a fixed peer, by process and descriptor. One that several processes hold is returned once. Each socket is duplicated for an instant
// (pidfd_getfd), which needs the right to ptrace the process; /proc/net would take seconds on a busy machine.
func ListeningSockets(pids []int) ([]Found, error) {
	return listeners(pids, func(uint64) bool { return false })
}

// TakeListeners is [ListeningSockets] with duplicates of those that take wants, by inode. The caller closes them, also those
// that come with an error. They are made as each socket is looked at: a moment later the descriptor may be a client's
// connection.
func TakeListeners(pids []int, take func(inode uint64) bool) ([]Found, error) {
	return listeners(pids, take)
}

// listeners ends with the first error: where one socket cannot be looked at, thousands may follow.
func listeners(pids []int, take func(inode uint64) bool) ([]Found, error) {
	var list []Found
	seen := map[uint64]bool{}
	for _, pid := range pids {
		found, err := listenersOf(pid, seen, take)
		list = append(list, found...)
		if err != nil {
			return list, fmt.Errorf("look into process %d: %w", pid, err)
		}
	}
	return list, nil
}

func listenersOf(pid int, seen map[uint64]bool, take func(inode uint64) bool) ([]Found, error) {
	pidfd, err := sys.PidfdOpen(pid)
	if err != nil {
		return nil, unlessGone(err)
	}
	defer pidfd.Close()
	var list []Found
	var failed error
	err = eachDescriptor(pid, func(fd int, target []byte) bool {
		inode, ok := socketInode(target)
		if !ok || seen[inode] {
			return true
		}
		dup, err := takeListener(pidfd, fd, inode)
		if err != nil {
			failed = fmt.Errorf("descriptor %d: %w", fd, err)
		}
		if dup == nil {
			return failed == nil
		}
		seen[inode] = true
		found := Found{PID: pid, FD: fd, Inode: inode, Dup: dup}
		if !take(inode) {
			dup.Close()
			found.Dup = nil
		}
		list = append(list, found)
		return true
	})
	slices.SortFunc(list, func(a, b Found) int { return a.FD - b.FD })
	return list, cmp.Or(failed, err)
}

// takeListener returns a duplicate of descriptor fd of the process behind pidfd, which the caller closes, or nil if it
// is no listener: one that was closed, or is another socket by now, is none.
func takeListener(pidfd *sys.FD, fd int, inode uint64) (*sys.FD, error) {
	dup, err := sys.PidfdGetfd(pidfd.Num(), fd)
	if err != nil {
		if errors.Is(err, syscall.EBADF) {
			err = nil
		}
		return nil, unlessGone(err)
	}
	now, err := sys.Inode(dup.Num())
	listens := false
	if err == nil && now == inode {
		listens, err = sys.IsListener(dup.Num())
	}
	if err != nil || !listens {
		dup.Close()
		return nil, err
	}
	return dup, nil
}

// Held tells which of the sockets, given by inode, some process of pids has open: the result maps each such inode to the
// first process found. A process that may not be looked into is an error; one that has ended is not.
func Held(pids []int, inodes []uint64) (map[uint64]int, error) {
	wanted := map[uint64]bool{}
	for _, inode := range inodes {
		wanted[inode] = true
	}
	held := map[uint64]int{}
	for _, pid := range pids {
		err := eachDescriptor(pid, func(_ int, target []byte) bool {
			if inode, ok := socketInode(target); ok && wanted[inode] {
				held[inode] = pid
				delete(wanted, inode)
			}
			return len(wanted) > 0
		})
		if err = unlessGone(err); err != nil {
			return nil, fmt.Errorf("look into process %d: %w", pid, err)
		}
		if len(wanted) == 0 {
			break
		}
	}
	return held, nil
}

// Holders returns for each of the sockets, given by inode, the processes that have it open, this one included, in
// ascending order. Processes that may not be looked into are left out. It reads every descriptor of every process.
func Holders(inodes []uint64) (map[uint64][]int, error) {
	wanted := map[uint64]bool{}
	for _, inode := range inodes {
		wanted[inode] = true
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	holders := map[uint64][]int{}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	for _, pid := range pids {
		eachDescriptor(pid, func(_ int, target []byte) bool {
			inode, ok := socketInode(target)
			if ok && wanted[inode] && !slices.Contains(holders[inode], pid) { // it may have it open twice
				holders[inode] = append(holders[inode], pid)
			}
			return true
		})
	}
	return holders, nil
}
