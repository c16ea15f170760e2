package probe

import (
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
}

// ListeningSockets returns the sockets of pids at which peers arrive: listening ones, and bound datagram sockets
// without a fixed peer, by process and descriptor. One that several processes hold is returned once. Each socket is duplicated for an instant
// (pidfd_getfd), which needs the right to ptrace the process; /proc/net would take seconds on a busy machine.
func ListeningSockets(pids []int) ([]Found, error) {
	var list []Found
	var errs []error
	seen := map[uint64]bool{}
	for _, pid := range pids {
		found, err := listeningSockets(pid, seen)
		list = append(list, found...)
		if err != nil {
			errs = append(errs, fmt.Errorf("look into process %d: %w", pid, err))
		}
	}
	return list, errors.Join(errs...)
}

func listeningSockets(pid int, seen map[uint64]bool) ([]Found, error) {
	pidfd, err := sys.PidfdOpen(pid)
	if err != nil {
		return nil, unlessGone(err)
	}
	defer pidfd.Close()
	var list []Found
	var errs []error
	err = eachDescriptor(pid, func(fd int, target []byte) bool {
		inode, ok := socketInode(target)
		if !ok || seen[inode] {
			return true
		}
		listens, err := isListener(pidfd, fd, inode)
		if err != nil {
			errs = append(errs, fmt.Errorf("descriptor %d: %w", fd, err))
			return true
		}
		seen[inode] = true
		if listens {
			list = append(list, Found{PID: pid, FD: fd, Inode: inode})
		}
		return true
	})
	slices.SortFunc(list, func(a, b Found) int { return a.FD - b.FD })
	return list, errors.Join(append(errs, err)...)
}

// isListener looks at descriptor fd of the process behind pidfd; one that was closed, or is another socket by now, is no listener.
func isListener(pidfd *sys.FD, fd int, inode uint64) (bool, error) {
	dup, err := sys.PidfdGetfd(pidfd.Num(), fd)
	if err != nil {
		if errors.Is(err, syscall.EBADF) {
			err = nil
		}
		return false, unlessGone(err)
	}
	defer dup.Close()
	if now, err := sys.Inode(dup.Num()); err != nil || now != inode {
		return false, err
	}
	return sys.IsListener(dup.Num())
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
