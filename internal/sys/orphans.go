package sys

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PeekExited returns the pid of a child that has ended and waits to be reaped, without reaping it; 0 if there is none.
func PeekExited() (int, error) {
	var si unix.Siginfo
	err := ignoringEINTR(func() error {
		return unix.Waitid(unix.P_ALL, 0, &si, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	})
	if err == unix.ECHILD || err == nil && si.Signo == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, os.NewSyscallError("waitid", err)
	}
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(&si), siginfoPID))), nil
}

// ReapChild reaps the child pid, which has ended, and forgets its status.
func ReapChild(pid int) error {
	err := ignoringEINTR(func() error {
		return unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG, nil)
	})
	return os.NewSyscallError("waitid", err)
}

// EndChild kills the child pid, which must not have been reaped yet, and reaps it.
func EndChild(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return os.NewSyscallError("kill", err)
	}
	err := ignoringEINTR(func() error { return unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED, nil) })
	return os.NewSyscallError("waitid", err)
}
