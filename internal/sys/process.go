package sys

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PidfdOpen returns a pidfd of the process pid (Linux 5.3). It is non-blocking (PIDFD_NONBLOCK, 5.10), so that the
// runtime's poller can wait on it. The caller closes it.
func PidfdOpen(pid int) (*FD, error) {
	n, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	return NewFD(n), nil
}

// PidfdPID returns the process id behind the borrowed pidfd n, from /proc/self/fdinfo. A reaped process, or one of
// another pid namespace, is os.ErrProcessDone; a descriptor that is no pidfd is another error.
func PidfdPID(n int) (int, error) {
	data, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(n))
	if err != nil {
		return 0, err
	}
	return parsePidfdInfo(string(data))
}

func parsePidfdInfo(info string) (int, error) {
	for line := range strings.Lines(info) {
		value, ok := strings.CutPrefix(line, "Pid:")
		if !ok {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(value))
		if err != nil {
			return 0, err
		}
		if pid <= 0 {
			return 0, os.ErrProcessDone
		}
		return pid, nil
	}
	return 0, errors.New("descriptor is not a pidfd")
}

// PidfdSignal sends sig to the process behind the borrowed pidfd n; os.ErrProcessDone when it is gone.
func PidfdSignal(n int, sig syscall.Signal) error {
	err := unix.PidfdSendSignal(n, sig, nil, 0)
	if err == unix.ESRCH {
		return os.ErrProcessDone
	}
	return os.NewSyscallError("pidfd_send_signal", err)
}

// PidfdGetfd duplicates descriptor target of the process behind the borrowed pidfd n (Linux 5.6; needs the right to
// ptrace it). The duplicate is close-on-exec and the caller closes it.
func PidfdGetfd(n, target int) (*FD, error) {
	fd, err := unix.PidfdGetfd(n, target, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_getfd", err)
	}
	return NewFD(fd), nil
}

// Exit is how a process ended.
type Exit struct {
	// Known is false for a process that was not our child, and was reaped before we looked on a kernel before 6.15:
	// only the time of its end is known.
	Known  bool
	Code   int
	Signal syscall.Signal
}

// ErrNotExited says that the process still runs.
var ErrNotExited = errors.New("process has not exited")

// Reap collects the exit status of the process behind the borrowed pidfd n without blocking. A child is reaped
// (waitid). Of another process the status comes from PIDFD_GET_INFO (Linux 6.15), or from /proc while it is a zombie.
// [ErrNotExited] while it runs.
func Reap(n int) (Exit, error) {
	var si unix.Siginfo
	err := ignoringEINTR(func() error {
		return unix.Waitid(unix.P_PIDFD, n, &si, unix.WEXITED|unix.WNOHANG, nil)
	})
	switch {
	case err == nil && si.Signo == 0:
		return Exit{}, ErrNotExited
	case err == nil:
		return exitFromSiginfo(&si), nil
	case err == unix.EAGAIN:
		return Exit{}, ErrNotExited
	case err == unix.ECHILD:
		if alive, aerr := pidfdAlive(n); aerr != nil || alive {
			return Exit{}, errors.Join(ErrNotExited, aerr)
		}
		return foreignExit(n), nil
	}
	return Exit{}, os.NewSyscallError("waitid", err)
}

// In the SIGCHLD layout si_pid, si_uid and si_status follow three ints, and what pads those to the size of a pointer.
const (
	pointer       = unsafe.Sizeof(uintptr(0))
	siginfoPID    = (3*4 + pointer - 1) / pointer * pointer
	siginfoStatus = siginfoPID + 8
)

func exitFromSiginfo(si *unix.Siginfo) Exit {
	status := *(*int32)(unsafe.Add(unsafe.Pointer(si), siginfoStatus))
	const cldExited = 1
	if si.Code == cldExited {
		return Exit{Known: true, Code: int(status)}
	}
	return Exit{Known: true, Signal: syscall.Signal(status)}
}

// pidfdAlive polls: a pidfd becomes readable when its process has ended.
func pidfdAlive(n int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(n), Events: unix.POLLIN}}
	var ready int
	err := ignoringEINTR(func() (err error) { ready, err = unix.Poll(fds, 0); return err })
	if err != nil {
		return false, os.NewSyscallError("poll", err)
	}
	return ready == 0, nil
}

// foreignExit returns how a process ended that is not our child. The kernel tells once its parent has reaped it;
// until then /proc shows it.
func foreignExit(n int) Exit {
	if e := pidfdExitInfo(n); e.Known {
		return e
	}
	if e := zombieExit(n); e.Known {
		return e
	}
	return pidfdExitInfo(n)
}

func pidfdExitInfo(n int) Exit {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(n), unix.PIDFD_GET_INFO, uintptr(unsafe.Pointer(&info))); errno != 0 {
		return Exit{}
	}
	if info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return Exit{}
	}
	return exitFromStatus(int(info.Exit_code))
}

// zombieExit reads the wait status of a process that nobody has reaped yet (proc_pid_stat(5), exit_code).
func zombieExit(n int) Exit {
	pid, err := PidfdPID(n)
	if err != nil {
		return Exit{}
	}
	proc := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(proc + "/stat")
	if err != nil {
		return Exit{}
	}
	// To one who may not ptrace it the kernel shows 0; the same right opens this link.
	if _, err := os.Readlink(proc + "/ns/user"); err != nil {
		return Exit{}
	}
	if again, err := PidfdPID(n); err != nil || again != pid {
		return Exit{}
	}
	return parseZombie(string(stat))
}

// parseZombie reads /proc/PID/stat, in which the command may hold anything.
func parseZombie(stat string) Exit {
	const exitCode = 52 - 3 // counted from the state, the first field after the command
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) <= exitCode || fields[0] != "Z" {
		return Exit{}
	}
	status, err := strconv.Atoi(fields[exitCode])
	if err != nil {
		return Exit{}
	}
	return exitFromStatus(status)
}

func exitFromStatus(status int) Exit {
	ws := syscall.WaitStatus(status)
	if ws.Signaled() {
		return Exit{Known: true, Signal: ws.Signal()}
	}
	return Exit{Known: true, Code: ws.ExitStatus()}
}

// WaitExit blocks until the process behind f, a pidfd handed to the runtime's poller, has ended, or f is closed.
func WaitExit(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Read(func(fd uintptr) bool {
		var alive bool
		alive, inner = pidfdAlive(int(fd))
		return !alive || inner != nil
	})
	return errors.Join(err, inner)
}

// Subreaper makes orphans of this process's descendants its children (PR_SET_CHILD_SUBREAPER).
func Subreaper() error {
	return os.NewSyscallError("prctl(PR_SET_CHILD_SUBREAPER)", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}

// MonotonicNow is CLOCK_MONOTONIC: it is the same for all processes of one boot, unlike Go's monotonic reading.
func MonotonicNow() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
