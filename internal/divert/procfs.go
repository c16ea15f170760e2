package divert

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// ErrPermission says that the kernel does not let this process look into or change a process of the worker.
var ErrPermission = errors.New("not permitted")

// descriptors calls visit with the number and target of each open descriptor of pid. A process that is gone has none.
func descriptors(pid int, visit func(fd int, target string)) error {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	open, err := os.Open(dir)
	if err == nil {
		defer open.Close()
		var names []string
		if names, err = open.Readdirnames(-1); err == nil {
			for _, name := range names {
				fd, numErr := strconv.Atoi(name)
				target, linkErr := os.Readlink(dir + "/" + name)
				if numErr == nil && linkErr == nil {
					visit(fd, target)
				}
			}
			return nil
		}
	}
	if gone(err) {
		return nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("read descriptors of process %d: %w: %w", pid, ErrPermission, err)
	}
	return fmt.Errorf("read descriptors of process %d: %w", pid, err)
}

// gone tells the errors of a process that has ended.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// socketInode reads "socket:[123]".
func socketInode(target string) (uint64, bool) {
	number, isSocket := strings.CutPrefix(target, "socket:[")
	if !isSocket {
		return 0, false
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
	return inode, err == nil
}
