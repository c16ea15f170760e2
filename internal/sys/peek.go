package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// SetPeekOffset sets SO_PEEK_OFF on the borrowed unix socket n: reads with MSG_PEEK start off bytes into the queue
// and move on by what they read, so that a sequence of them walks through all queued messages. -1 switches it off.
// The offset belongs to the socket and is shared by its holders.
func SetPeekOffset(n, off int) error {
	return os.NewSyscallError("setsockopt(SO_PEEK_OFF)", unix.SetsockoptInt(n, unix.SOL_SOCKET, unix.SO_PEEK_OFF, off))
}
