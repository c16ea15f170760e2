package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// HungUp reports whether the borrowed descriptor n has EPOLLHUP or EPOLLERR, the events on which systemd drops an
// entry of its FD store. What cannot be polled (files, memfds) never has.
func HungUp(n int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(n)}}
	err := ignoringEINTR(func() (err error) { _, err = unix.Poll(fds, 0); return err })
	return fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0, os.NewSyscallError("poll", err)
}
