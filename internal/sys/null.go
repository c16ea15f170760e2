package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// OpenNull opens /dev/null for reading and writing, close-on-exec. The caller closes it.
func OpenNull() (*FD, error) {
	n, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	return NewFD(n), nil
}
