package sys

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// RemoveStaleSocket removes the unix socket at path if nobody listens on it any more. A path that does not exist is
// no error; a living socket, or a file of another kind, is.
func RemoveStaleSocket(path string) error {
	st, err := os.Lstat(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is no socket", path)
	}
	n, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(n)
	// ECONNREFUSED is the one answer of a socket without a listener; EPROTOTYPE, EAGAIN or success mean somebody is there.
	if err := unix.Connect(n, &unix.SockaddrUnix{Name: path}); err != unix.ECONNREFUSED {
		return fmt.Errorf("%s is in use by another process", path)
	}
	return os.Remove(path)
}
