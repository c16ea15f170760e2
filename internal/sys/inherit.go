package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// CloseOnExec reports whether FD_CLOEXEC is set on the borrowed descriptor number n. A descriptor that came through
// execve has it clear; what the Go runtime opened for itself has it set. A number that is not open is EBADF.
func CloseOnExec(n int) (bool, error) {
	flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0)
	return flags&unix.FD_CLOEXEC != 0, os.NewSyscallError("fcntl(F_GETFD)", err)
}

// SameDescription reports whether the borrowed descriptors a and b refer to the same open file description, as
// systemd's FD store decides what is a duplicate: F_DUPFD_QUERY (Linux 6.10), else kcmp(2).
func SameDescription(a, b int) (bool, error) {
	const dupfdQuery = 1027
	if r, err := unix.FcntlInt(uintptr(a), dupfdQuery, b); err == nil {
		return r == 1, nil
	}
	const kcmpFile = 0
	pid := uintptr(os.Getpid())
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, pid, pid, kcmpFile, uintptr(a), uintptr(b), 0)
	if errno != 0 {
		return false, os.NewSyscallError("kcmp", errno)
	}
	return r == 0, nil
}
