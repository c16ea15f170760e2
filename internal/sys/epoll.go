package sys

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// EpollEntry is one registration in an epoll set. The kernel's key is the pair of the open file description and the
// descriptor number under which it was added, so both are needed to change it.
type EpollEntry struct {
	// Number is the descriptor number that was registered.
	Number int
	Events uint32
	Data   uint64
	// Inode is the target's.
	Inode uint64
}

// EpollEntries returns the registrations of the epoll descriptor fd of process pid, from /proc/PID/fdinfo/FD
// (with inodes since Linux 4.13).
func EpollEntries(pid, fd int) ([]EpollEntry, error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	if err != nil {
		return nil, err
	}
	return parseEpollInfo(info), nil
}

// parseEpollInfo reads the lines "tfd: 5 events: 19 data: 7f00 pos:0 ino:2b1c sdev:8"; all but tfd are hexadecimal.
func parseEpollInfo(info []byte) []EpollEntry {
	var entries []EpollEntry
	for line := range bytes.Lines(info) {
		number, ok1 := field(line, "tfd:", 10)
		events, ok2 := field(line, "events:", 16)
		data, ok3 := field(line, "data:", 16)
		inode, ok4 := field(line, "ino:", 16)
		if ok1 && ok2 && ok3 && ok4 && number <= 1<<31-1 {
			entries = append(entries, EpollEntry{Number: int(number), Events: uint32(events), Data: data, Inode: inode})
		}
	}
	return entries
}

func field(line []byte, key string, base int) (uint64, bool) {
	_, rest, found := bytes.Cut(line, []byte(key))
	if !found {
		return 0, false
	}
	rest = bytes.TrimLeft(rest, " \t")
	if end := bytes.IndexAny(rest, " \t\n"); end >= 0 {
		rest = rest[:end]
	}
	v, err := strconv.ParseUint(string(rest), base, 64)
	return v, err == nil
}

// EpollChange adds the entry to an epoll set of another process, or deletes it. It borrows both descriptors.
type EpollChange struct {
	Epoll, Target *FD
	Entry         EpollEntry
	Delete        bool
	// Err is what epoll_ctl said; ChangeEpoll sets it.
	Err error
}

// ChangeEpoll makes the changes in order and fills in their Err.
//
// epoll_ctl names an entry by a descriptor number of the caller, and here it has to be the number that the other
// process used, which may well be one of this process's own. So the calls are made on a thread that has a descriptor
// table of its own (unshare(CLONE_FILES)) and ends afterwards; where that number is taken by something of the Go
// runtime, the few system calls during which it is replaced run with all signals blocked and without a point at which
// the scheduler could use the thread.
func ChangeEpoll(changes []EpollChange) error {
	done := make(chan error, 1)
	var tid int
	go func() {
		// Never unlocked: the runtime ends the thread, and with it the table, together with this goroutine.
		runtime.LockOSThread()
		tid = unix.Gettid()
		if tid == unix.Getpid() {
			// The runtime cannot end the main thread. While it is held here another goroutine gets another one.
			tid = 0
			err := ChangeEpoll(changes)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		if err := unix.Unshare(unix.CLONE_FILES); err != nil {
			done <- os.NewSyscallError("unshare(CLONE_FILES)", err)
			return
		}
		for i := range changes {
			changes[i].Err = changes[i].apply()
		}
		done <- nil
	}()
	err := <-done
	awaitThreadEnd(tid)
	return err
}

// awaitThreadEnd waits until the thread and its copies of all descriptors are gone, so that closing one of them takes
// effect at once again. The wait is some tens of microseconds.
func awaitThreadEnd(tid int) {
	if tid == 0 {
		return
	}
	pid := unix.Getpid()
	for end := time.Now().Add(time.Second); time.Now().Before(end); runtime.Gosched() {
		if unix.Tgkill(pid, tid, 0) != nil {
			return
		}
	}
}

func (c *EpollChange) apply() error {
	op, name := unix.EPOLL_CTL_ADD, "epoll_ctl(EPOLL_CTL_ADD)"
	if c.Delete {
		op, name = unix.EPOLL_CTL_DEL, "epoll_ctl(EPOLL_CTL_DEL)"
	}
	// epoll_data is the 64 bits of these two.
	event := unix.EpollEvent{Events: c.Entry.Events, Fd: int32(c.Entry.Data), Pad: int32(c.Entry.Data >> 32)}
	errno := epollCtlAs(uintptr(c.Epoll.Num()), uintptr(op), uintptr(c.Target.Num()), uintptr(c.Entry.Number), &event)
	if errno != 0 {
		return os.NewSyscallError(name, errno)
	}
	return nil
}

// epollCtlAs calls epoll_ctl with target under the given number of this thread's private descriptor table, and puts
// back what was there. Nothing in it may enter the scheduler: number may be the runtime's own epoll or eventfd.
//
//go:nosplit
//go:norace
func epollCtlAs(epoll, op, target, number uintptr, event *unix.EpollEvent) unix.Errno {
	if target == number {
		_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, epoll, op, number, uintptr(unsafe.Pointer(event)), 0, 0)
		return errno
	}
	var all, old uint64 = ^uint64(0), 0
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	saved, _, errno := unix.RawSyscall(unix.SYS_FCNTL, number, unix.F_DUPFD_CLOEXEC, 0)
	taken := errno == 0
	if taken || errno == unix.EBADF {
		if epoll == number {
			epoll = saved
		}
		_, _, errno = unix.RawSyscall(unix.SYS_DUP3, target, number, unix.O_CLOEXEC)
		if errno == 0 {
			_, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_CTL, epoll, op, number, uintptr(unsafe.Pointer(event)), 0, 0)
			if taken {
				unix.RawSyscall(unix.SYS_DUP3, saved, number, unix.O_CLOEXEC)
			} else {
				unix.RawSyscall(unix.SYS_CLOSE, number, 0, 0)
			}
		}
		if taken {
			unix.RawSyscall(unix.SYS_CLOSE, saved, 0, 0)
		}
	}
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	return errno
}
