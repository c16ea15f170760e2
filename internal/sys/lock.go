package sys

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another open file description holds the lock.
var ErrLocked = errors.New("locked by another process")

// Lock takes the exclusive flock(2) of file, or returns ErrLocked at once. It is held until every descriptor of this
// open file description is closed, also by the end of the process.
func Lock(file *os.File) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = conn.Control(func(n uintptr) {
		result = ignoringEINTR(func() error { return unix.Flock(int(n), unix.LOCK_EX|unix.LOCK_NB) })
	})
	if errors.Is(result, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	return errors.Join(err, os.NewSyscallError("flock", result))
}
