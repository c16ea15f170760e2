package sys

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// ReadLinks calls see with the name and the target of every symbolic link in the directory dir, such as
// /proc/PID/fd, beginning with the last, until see returns false. target is valid during the call only. A link that
// vanishes meanwhile is left out.
func ReadLinks(dir string, see func(name string, target []byte) bool) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	raw, err := d.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(dirfd uintptr) {
		var buf [unix.PathMax]byte
		for _, name := range slices.Backward(names) {
			n, err := unix.Readlinkat(int(dirfd), name, buf[:])
			if err != nil && err != unix.ENOENT {
				inner = &os.PathError{Op: "readlink", Path: dir + "/" + name, Err: err}
				return
			}
			if err == nil && !see(name, buf[:n]) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	return inner
}
