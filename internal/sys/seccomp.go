package sys

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// auditArch is what seccomp_data.arch says for system calls of this program's architecture.
var auditArch = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// FilterBind makes the kernel report each bind(2) of the calling thread, and of all it starts or becomes by execve,
// to the returned notification descriptor (seccomp user notification, Linux 5.9). Nothing else is filtered, but that
// system calls of the x32 kind fail with ENOSYS on amd64, because they would be a way around; those of a 32-bit
// program are not seen. Without CAP_SYS_ADMIN it sets no_new_privs, which stays. The goroutine must be locked to its
// thread. The caller closes the descriptor.
func FilterBind() (*FD, error) {
	arch, ok := auditArch[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("interception of bind is not implemented for %s", runtime.GOARCH)
	}
	filter := bindFilter(arch)
	fd, err := installFilter(filter)
	if err == unix.EACCES {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return nil, os.NewSyscallError("prctl(PR_SET_NO_NEW_PRIVS)", err)
		}
		fd, err = installFilter(filter)
	}
	switch err {
	case nil:
		return fd, nil
	case unix.EBUSY:
		return nil, errors.New("seccomp: this process is under another filter with notifications, and the kernel allows one")
	case unix.EINVAL, unix.ENOSYS:
		return nil, fmt.Errorf("seccomp: the kernel has no user notifications (Linux 5.9, CONFIG_SECCOMP_FILTER): %w", err)
	}
	return nil, os.NewSyscallError("seccomp", err)
}

// bindFilter returns the classic BPF program; jumps count instructions from the next one.
func bindFilter(arch uint32) []unix.SockFilter {
	const (
		load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		jge  = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		ret  = unix.BPF_RET | unix.BPF_K

		offsetNr, offsetArch = 0, 4 // struct seccomp_data
		x32                  = 0x40000000
	)
	// Other architectures have no second numbering, so that no number reaches this bound.
	above := uint32(math.MaxUint32)
	if arch == unix.AUDIT_ARCH_X86_64 {
		above = x32
	}
	return []unix.SockFilter{
		{Code: load, K: offsetArch},
		{Code: jeq, K: arch, Jf: 3},
		{Code: load, K: offsetNr},
		{Code: jge, K: above, Jt: 3},
		{Code: jeq, K: unix.SYS_BIND, Jt: 1},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
	}
}

// installFilter returns a bare errno.
func installFilter(filter []unix.SockFilter) (*FD, error) {
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// With WAIT_KILLABLE_RECV (Linux 5.19) a signal does not interrupt a bind that is being answered.
	var errno unix.Errno
	for _, flags := range []uintptr{
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER,
	} {
		var n uintptr
		n, _, errno = unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
		if errno == 0 {
			return NewFD(int(n)), nil
		}
		if errno != unix.EINVAL {
			break
		}
	}
	return nil, errno
}

// BindCall is a bind(2) that waits for an answer.
type BindCall struct {
	ID uint64
	// TID is the calling thread.
	TID int
	// FD is the socket's descriptor in the caller. Addr and Len are the sockaddr in the caller's memory.
	FD   int
	Addr uintptr
	Len  int
}

// The structures of <linux/seccomp.h>.
type seccompNotif struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type seccompResp struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

type seccompAddfd struct {
	id                              uint64
	flags, srcfd, newfd, newfdFlags uint32
}

func ioctl(n int, request uintptr, arg unsafe.Pointer) error {
	return ignoringEINTR(func() error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(n), request, uintptr(arg)); errno != 0 {
			return errno
		}
		return nil
	})
}

// PollBind tells, without blocking, whether a call waits at the borrowed notification descriptor n, and whether no
// process is left that could make one.
func PollBind(n int) (waiting, over bool, err error) {
	fds := []unix.PollFd{{Fd: int32(n), Events: unix.POLLIN}}
	err = ignoringEINTR(func() (err error) { _, err = unix.Poll(fds, 0); return err })
	return fds[0].Revents&unix.POLLIN != 0, fds[0].Revents&unix.POLLHUP != 0, os.NewSyscallError("poll", err)
}

// ReceiveBind takes the next call from the borrowed notification descriptor n. It blocks while there is none; ENOENT
// means that the caller has gone meanwhile.
func ReceiveBind(n int) (BindCall, error) {
	var notif seccompNotif
	if err := ioctl(n, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&notif)); err != nil {
		return BindCall{}, os.NewSyscallError("ioctl(SECCOMP_IOCTL_NOTIF_RECV)", err)
	}
	return BindCall{
		ID: notif.id, TID: int(notif.pid),
		FD: int(int32(notif.args[0])), Addr: uintptr(notif.args[1]), Len: int(int32(notif.args[2])),
	}, nil
}

// BindWaits reports whether the call still waits for an answer. What was read from the caller before is true only then:
// otherwise its process id may belong to somebody else.
func BindWaits(n int, call BindCall) bool {
	return ioctl(n, unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&call.ID)) == nil
}

// ReplaceBindSocket puts a duplicate of the borrowed descriptor src in the place of the caller's socket.
func ReplaceBindSocket(n int, call BindCall, src int, cloexec bool) error {
	add := seccompAddfd{id: call.ID, flags: unix.SECCOMP_ADDFD_FLAG_SETFD, srcfd: uint32(src), newfd: uint32(call.FD)}
	if cloexec {
		add.newfdFlags = unix.O_CLOEXEC
	}
	return os.NewSyscallError("ioctl(SECCOMP_IOCTL_NOTIF_ADDFD)", ioctl(n, unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&add)))
}

// AnswerBind lets the call return 0 without being carried out, or, with proceed, has the kernel carry it out.
func AnswerBind(n int, call BindCall, proceed bool) error {
	resp := seccompResp{id: call.ID}
	if proceed {
		resp.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	}
	return os.NewSyscallError("ioctl(SECCOMP_IOCTL_NOTIF_SEND)", ioctl(n, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&resp)))
}

// ReadMemory reads the memory of the process or thread pid at addr into buf, all or nothing (process_vm_readv(2)).
func ReadMemory(pid int, addr uintptr, buf []byte) error {
	local := []unix.Iovec{{Base: &buf[0]}}
	local[0].SetLen(len(buf))
	n, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: addr, Len: len(buf)}}, 0)
	if err != nil {
		return os.NewSyscallError("process_vm_readv", err)
	}
	if n != len(buf) {
		return fmt.Errorf("process_vm_readv: %d of %d bytes", n, len(buf))
	}
	return nil
}
