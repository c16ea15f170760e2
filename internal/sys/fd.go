// Package sys is the one place that talks to the kernel about descriptors,
// sockets and processes; nothing else imports golang.org/x/sys/unix.
//
// Its rules: every descriptor is close-on-exec from birth, every received
// descriptor is owned by an [FD] before anything else happens, a truncated
// control message is an error, and EINTR never reaches a caller. Nothing here
// changes the flags of a descriptor unless its name says so: O_NONBLOCK belongs
// to the open file description, which other processes share.
//
// Linux 5.10 or newer. What needs a newer kernel says so and has a fallback.
package sys

import (
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// FD owns one descriptor: whoever holds the FD closes it, exactly once.
// A function that takes an *FD borrows it unless its documentation says that
// it takes ownership. Methods may be called from several goroutines, but a
// descriptor in use must not be closed by another. The zero value, like a nil FD, owns nothing.
type FD struct{ next atomic.Int64 } // the number plus one: descriptor 0 is somebody's standard input

// NewFD takes ownership of descriptor n.
func NewFD(n int) *FD {
	fd := new(FD)
	fd.next.Store(int64(n) + 1)
	return fd
}

// Num lends the descriptor's number: it is valid until Close or Disown, after which Num is -1.
func (fd *FD) Num() int {
	if fd == nil {
		return -1
	}
	return int(fd.next.Load()) - 1
}

// Close closes the descriptor. Closing twice, or a nil FD, is harmless.
func (fd *FD) Close() error {
	if fd == nil {
		return nil
	}
	n := fd.Disown()
	if n < 0 {
		return nil
	}
	return os.NewSyscallError("close", unix.Close(n))
}

// Disown gives the descriptor to the caller, who must close it, and empties the FD.
func (fd *FD) Disown() int { return int(fd.next.Swap(0)) - 1 }

// Dup returns a second, close-on-exec descriptor of the same open file description. The caller closes it.
func (fd *FD) Dup() (*FD, error) { return DupNum(fd.Num()) }

// DupNum is [FD.Dup] for a borrowed number.
func DupNum(n int) (*FD, error) {
	d, err := unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl(F_DUPFD_CLOEXEC)", err)
	}
	return NewFD(d), nil
}

// File hands the descriptor over to an *os.File, for what is read or written
// here and not merely carried (pipes, pidfds, memfds). The FD is empty afterwards.
// A non-blocking descriptor that can be polled uses the runtime's poller.
func (fd *FD) File(name string) *os.File { return os.NewFile(uintptr(fd.Disown()), name) }

// CloseAll closes every descriptor of fds.
func CloseAll(fds []*FD) {
	for _, fd := range fds {
		fd.Close()
	}
}

// SetCloseOnExec sets FD_CLOEXEC on a borrowed descriptor number.
func SetCloseOnExec(n int) error {
	_, err := unix.FcntlInt(uintptr(n), unix.F_SETFD, unix.FD_CLOEXEC)
	return os.NewSyscallError("fcntl(F_SETFD)", err)
}

// ClearCloseOnExec lets a borrowed descriptor number survive the next execve. Only a process about to execve calls it.
func ClearCloseOnExec(n int) error {
	_, err := unix.FcntlInt(uintptr(n), unix.F_SETFD, 0)
	return os.NewSyscallError("fcntl(F_SETFD)", err)
}

// Nonblock reports whether O_NONBLOCK is set on the open file description of n.
func Nonblock(n int) (bool, error) {
	flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFL, 0)
	return flags&unix.O_NONBLOCK != 0, os.NewSyscallError("fcntl(F_GETFL)", err)
}

// SetNonblock changes O_NONBLOCK for every holder of the open file description of n.
func SetNonblock(n int, on bool) error {
	flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFL, 0)
	if err != nil {
		return os.NewSyscallError("fcntl(F_GETFL)", err)
	}
	want := flags &^ unix.O_NONBLOCK
	if on {
		want |= unix.O_NONBLOCK
	}
	if want == flags {
		return nil
	}
	_, err = unix.FcntlInt(uintptr(n), unix.F_SETFL, want)
	return os.NewSyscallError("fcntl(F_SETFL)", err)
}

// Pipe returns both ends of a close-on-exec pipe. The caller closes them.
func Pipe() (r, w *FD, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	return NewFD(p[0]), NewFD(p[1]), nil
}

// Limits of the number of open descriptors (RLIMIT_NOFILE): soft and hard.
func NofileLimit() (soft, hard uint64, err error) {
	var r unix.Rlimit
	err = unix.Getrlimit(unix.RLIMIT_NOFILE, &r)
	return r.Cur, r.Max, os.NewSyscallError("getrlimit", err)
}

// Kind is what a descriptor refers to.
type Kind int

// The kinds that matter to a supervisor.
const (
	KindOther Kind = iota
	KindSocket
	KindPidfd
	KindMemfd
)

// KindOf tells what the borrowed descriptor n refers to; a number that is not open is an error (EBADF).
func KindOf(n int) (Kind, error) {
	var st unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Fstat(n, &st) }); err != nil {
		return KindOther, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		return KindSocket, nil
	}
	// Every file of a tmpfs has seals, but only a memfd never has a name.
	if _, err := unix.FcntlInt(uintptr(n), unix.F_GET_SEALS, 0); err == nil && st.Nlink == 0 {
		return KindMemfd, nil
	}
	if _, err := PidfdPID(n); err == nil {
		return KindPidfd, nil
	}
	return KindOther, nil
}

// Inode returns the inode number of the borrowed descriptor n, as /proc and ss show it.
func Inode(n int) (uint64, error) {
	var st unix.Stat_t
	err := ignoringEINTR(func() error { return unix.Fstat(n, &st) })
	return st.Ino, os.NewSyscallError("fstat", err)
}

func ignoringEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
