package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Cookie returns the identity of the borrowed socket n (SO_COOKIE), the same for all its descriptors in all processes.
func Cookie(n int) (uint64, error) {
	c, err := unix.GetsockoptUint64(n, unix.SOL_SOCKET, unix.SO_COOKIE)
	return c, os.NewSyscallError("getsockopt(SO_COOKIE)", err)
}
