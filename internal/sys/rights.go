package sys

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxRights is the most descriptors the kernel carries in one message (SCM_MAX_FD, unix(7)).
const MaxRights = 253

// ErrTruncated says that the kernel dropped descriptors or bytes of a message: the control buffer was too small,
// or this process had no descriptor numbers left (RLIMIT_NOFILE).
var ErrTruncated = errors.New("message truncated, descriptors were lost (MSG_CTRUNC): the limit on open descriptors may be reached")

// Cred is the sender of a message as the kernel vouches for it (SCM_CREDENTIALS). PID is 0 where it is outside our pid namespace.
type Cred struct {
	PID      int
	UID, GID uint32
}

// Message is one received message. The receiver owns FDs and closes them.
type Message struct {
	N    int
	FDs  []*FD
	Cred *Cred
	// Truncated says that the payload was longer than the buffer (MSG_TRUNC).
	Truncated bool
}

// ReadMessage reads once from c into buf, taking the descriptors and credentials that come with it. c's deadline
// applies. On any error, [ErrTruncated] included, no descriptor stays open. End of stream is N == 0 with no error
// on a stream socket.
func ReadMessage(c *net.UnixConn, buf []byte) (Message, error) {
	oob := make([]byte, unix.CmsgSpace(MaxRights*4)+unix.CmsgSpace(unix.SizeofUcred))
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	// net calls every empty read of a connection the end, also an empty SOCK_SEQPACKET message that carries descriptors.
	if err != nil && !errors.Is(err, io.EOF) {
		return Message{}, err
	}
	return parseMessage(n, oob[:oobn], flags)
}

// parseMessage takes ownership of every descriptor in oob before it looks at anything else.
func parseMessage(n int, oob []byte, flags int) (Message, error) {
	m := Message{N: n, Truncated: flags&unix.MSG_TRUNC != 0}
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return Message{}, fmt.Errorf("parse control message: %w", err)
	}
	for i := range cmsgs {
		if cmsgs[i].Header.Level != unix.SOL_SOCKET {
			continue
		}
		switch cmsgs[i].Header.Type {
		case unix.SCM_RIGHTS:
			fds, err := unix.ParseUnixRights(&cmsgs[i])
			if err != nil {
				CloseAll(m.FDs)
				return Message{}, fmt.Errorf("parse SCM_RIGHTS: %w", err)
			}
			for _, fd := range fds {
				m.FDs = append(m.FDs, NewFD(fd))
			}
		case unix.SCM_CREDENTIALS:
			if u, err := unix.ParseUnixCredentials(&cmsgs[i]); err == nil {
				m.Cred = &Cred{PID: int(u.Pid), UID: u.Uid, GID: u.Gid}
			}
		}
	}
	if flags&unix.MSG_CTRUNC != 0 {
		CloseAll(m.FDs)
		return Message{}, ErrTruncated
	}
	return m, nil
}

// WriteMessage sends p and the borrowed descriptors fds (at most [MaxRights]) over a connected c in one message.
// A partial write of a stream is completed without repeating the descriptors.
func WriteMessage(c *net.UnixConn, p []byte, fds []int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	n, _, err := c.WriteMsgUnix(p, oob, nil)
	if err != nil {
		return err
	}
	if n < len(p) {
		_, err = c.Write(p[n:])
	}
	return err
}

// SendTo sends one datagram with the borrowed descriptors fds to the unix datagram socket at path ("@" begins an
// abstract name), from a socket of its own. It blocks while the receiver's queue is full, as sd_notify(3) does.
func SendTo(path string, p []byte, fds []int) error { return SendToWithin(path, p, fds, 0) }

// SendToWithin is [SendTo] that blocks no longer than d, and not at all if d is negative; then the error is
// syscall.EAGAIN. 0 waits for ever.
func SendToWithin(path string, p []byte, fds []int, d time.Duration) error {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	flags := unix.MSG_NOSIGNAL
	if d < 0 {
		flags |= unix.MSG_DONTWAIT
	}
	if d > 0 {
		limit := unix.NsecToTimeval(int64(d))
		if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
			return os.NewSyscallError("setsockopt(SO_SNDTIMEO)", err)
		}
	}
	err = ignoringEINTR(func() error {
		return unix.Sendmsg(s, p, oob, &unix.SockaddrUnix{Name: path}, flags)
	})
	return os.NewSyscallError("sendmsg", err)
}

// SendRights queues p with the borrowed descriptors fds on socket s without blocking (EAGAIN when the queue is full,
// ETOOMANYREFS when the user has more descriptors in flight than RLIMIT_NOFILE).
func SendRights(s *FD, p []byte, fds []int) error {
	err := ignoringEINTR(func() error {
		return unix.Sendmsg(s.Num(), p, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	})
	return os.NewSyscallError("sendmsg", err)
}

// ReceiveRights takes the next message from the queue of the
// socket s without blocking. With peek the message stays queued and the descriptors are
// fresh duplicates. syscall.EAGAIN means an empty queue. The caller closes the descriptors.
func ReceiveRights(s *FD, buf []byte, peek bool) (Message, error) {
	oob := make([]byte, unix.CmsgSpace(MaxRights*4)+unix.CmsgSpace(unix.SizeofUcred))
	flags := unix.MSG_CMSG_CLOEXEC | unix.MSG_DONTWAIT
	if peek {
		flags |= unix.MSG_PEEK
	}
	var n, oobn, got int
	err := ignoringEINTR(func() (err error) {
		n, oobn, got, _, err = unix.Recvmsg(s.Num(), buf, oob, flags)
		return err
	})
	if err != nil {
		return Message{}, os.NewSyscallError("recvmsg", err)
	}
	return parseMessage(n, oob[:oobn], got)
}

// Socketpair returns two connected close-on-exec unix sockets of type syscall.SOCK_STREAM or SOCK_SEQPACKET.
// The caller closes them.
func Socketpair(typ int) (a, b *FD, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return NewFD(p[0]), NewFD(p[1]), nil
}

// UnixConn takes ownership of the unix socket fd, which is read and written here, and returns it as a net.UnixConn.
// It must not be used for a socket that is only carried: net makes it non-blocking for every holder.
func UnixConn(fd *FD) (*net.UnixConn, error) {
	f := fd.File("unix socket")
	if f == nil {
		return nil, os.NewSyscallError("dup", syscall.EBADF)
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("descriptor is a %T, not a unix socket", c)
	}
	return u, nil
}

// PassCredentials asks for [Message.Cred] on every message that c receives (SO_PASSCRED).
func PassCredentials(c syscall.Conn) error {
	return control(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
}

// PeerCred returns the credentials of the process that connected c or, where c was connected, of the one that called
// listen(2) (SO_PEERCRED).
func PeerCred(c syscall.Conn) (Cred, error) {
	var cred Cred
	err := control(c, func(fd int) error {
		u, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil {
			cred = Cred{PID: int(u.Pid), UID: u.Uid, GID: u.Gid}
		}
		return err
	})
	return cred, err
}

// DupConn returns a second descriptor of c's socket, to be stored or passed on. The caller closes it.
func DupConn(c syscall.Conn) (*FD, error) {
	var dup *FD
	err := control(c, func(fd int) (err error) { dup, err = DupNum(fd); return err })
	return dup, err
}

func control(c syscall.Conn, call func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = call(int(fd)) }); err != nil {
		return err
	}
	return inner
}
