package probe

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strconv"
	"syscall"

	"github.com/8265a91a/supervisor/internal/sys"
)

// Listening tells which of the sockets, given by inode, some process of pids waits on: the result maps each such
// inode to the first process found. It stops looking when all are found. An error means that a process could not be
// looked into while a socket was still missing; what was found holds all the same. Processes that have ended are no error.
func Listening(pids []int, inodes []uint64) (map[uint64]int, error) {
	missing := make(map[uint64]bool, len(inodes))
	for _, inode := range inodes {
		missing[inode] = true
	}
	found := make(map[uint64]int, len(missing))
	var errs []error
	for _, pid := range pids {
		if len(missing) == 0 {
			return found, nil
		}
		err := waits(pid, missing, func(inode uint64) {
			delete(missing, inode)
			found[inode] = pid
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("look into process %d: %w", pid, err))
		}
	}
	if len(missing) == 0 {
		return found, nil
	}
	return found, errors.Join(errs...)
}

// waits calls found for each socket in missing, which found empties, that pid waits on.
func waits(pid int, missing map[uint64]bool, found func(uint64)) error {
	var errs []error
	sockets := map[int]uint64{} // inodes by descriptor
	// The descriptors are walked downwards: a server opens its epoll set after it was given the sockets, so with
	// thousands of them most links need not be read.
	err := eachDescriptor(pid, func(fd int, target []byte) bool {
		if inode, ok := socketInode(target); ok && missing[inode] {
			sockets[fd] = inode
		} else if string(target) == "anon_inode:[eventpoll]" {
			errs = append(errs, epollTargets(pid, fd, missing, found))
		}
		return len(missing) > 0
	})
	errs = append(errs, err)
	maps.DeleteFunc(sockets, func(_ int, inode uint64) bool { return !missing[inode] })
	if len(sockets) > 0 {
		errs = append(errs, sleepers(pid, sockets, found))
	}
	return errors.Join(errs...)
}

// eachDescriptor calls see with every descriptor of pid and what its link in /proc says, until see returns false.
// A process that has ended has none.
func eachDescriptor(pid int, see func(fd int, target []byte) bool) error {
	return unlessGone(sys.ReadLinks("/proc/"+strconv.Itoa(pid)+"/fd", func(name string, target []byte) bool {
		fd, err := strconv.Atoi(name)
		return err != nil || see(fd, target)
	}))
}

// socketInode reads "socket:[12345]".
func socketInode(target []byte) (uint64, bool) {
	digits, ok := bytes.CutPrefix(target, []byte("socket:["))
	if !ok {
		return 0, false
	}
	return parseNumber(bytes.TrimSuffix(digits, []byte("]")), 10)
}

// parseNumber is strconv.ParseUint without the copy that it would make of each of thousands of numbers.
func parseNumber(digits []byte, base uint64) (n uint64, ok bool) {
	for _, c := range digits {
		digit := uint64(c - '0')
		if c >= 'a' && c <= 'f' {
			digit = uint64(c-'a') + 10
		}
		if digit >= base || n > (1<<64-1-digit)/base {
			return 0, false
		}
		n = n*base + digit
	}
	return n, len(digits) > 0
}

// unlessGone drops the errors of reading about a process, thread or descriptor that is no more.
func unlessGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}
