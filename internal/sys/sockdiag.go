package sys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// SocketState is a set of socket states for sock_diag(7), one bit per state.
type SocketState uint32

// The sets that a supervisor asks for.
const (
	// StateConnected is every state in which a process may still talk to a peer or wait for it.
	StateConnected SocketState = 1<<unix.BPF_TCP_ESTABLISHED | 1<<unix.BPF_TCP_FIN_WAIT1 | 1<<unix.BPF_TCP_FIN_WAIT2 |
		1<<unix.BPF_TCP_CLOSE_WAIT | 1<<unix.BPF_TCP_LAST_ACK | 1<<unix.BPF_TCP_CLOSING
	// StateHalfOpen is a TCP connection that no process can accept yet: its handshake is not complete, or
	// TCP_DEFER_ACCEPT waits for data.
	StateHalfOpen SocketState = 1 << unix.BPF_TCP_SYN_RECV
	// StateListening is a stream socket that listens.
	StateListening SocketState = 1 << unix.BPF_TCP_LISTEN
	// StateBound is a datagram socket that is not connected.
	StateBound SocketState = 1 << unix.BPF_TCP_CLOSE
)

// DiagSocket is one socket as sock_diag reports it.
type DiagSocket struct {
	// Inode is 0 for a connection that waits in an accept queue, or is half-open.
	Inode uint64
	// Cookie identifies an inet socket (SO_COOKIE), from its SYN on.
	Cookie uint64
	UID    uint32
	// Addr and Port are the local address of an inet socket, Peer is the port that it is connected to, or 0, and Interface
	// is the index of the one it is bound to, or 0.
	// Name is the address of a Unix socket as [Socket].Address shows it.
	Addr      netip.Addr
	Port      uint16
	Peer      uint16
	Interface uint32
	Name      string
	// File is the number of the file that a Unix socket is bound to, cut to 32 bits; 0 where there is none.
	File uint32
	// Queue and Limit are the accept queue of a listener and its backlog.
	Queue, Limit uint32
}

// ErrNoDiag says that the kernel cannot report sockets of this kind (its *_diag module is not there).
var ErrNoDiag = errors.New("the kernel reports no sockets of this kind")

// DiagInet calls visit for each TCP or UDP socket with the local port, in one of states, in the network namespace of
// the calling thread. v6 chooses AF_INET6 sockets, those of dual-stack listeners included, else AF_INET ones.
func DiagInet(udp, v6 bool, port uint16, states SocketState, visit func(DiagSocket)) error {
	// struct inet_diag_req_v2
	req := make([]byte, 56)
	req[0], req[1] = unix.AF_INET, unix.IPPROTO_TCP
	if v6 {
		req[0] = unix.AF_INET6
	}
	if udp {
		req[1] = unix.IPPROTO_UDP
	}
	binary.NativeEndian.PutUint32(req[4:], uint32(states))
	binary.BigEndian.PutUint16(req[8:], port)
	return diag(req, unix.NLM_F_DUMP, func(m []byte) {
		if s, ok := parseInetDiag(m); ok && s.Port == port {
			visit(s)
		}
	})
}

// parseInetDiag reads a struct inet_diag_msg.
func parseInetDiag(m []byte) (DiagSocket, bool) {
	if len(m) < 72 {
		return DiagSocket{}, false
	}
	s := DiagSocket{
		Addr:      netip.AddrFrom4([4]byte(m[8:12])),
		Port:      binary.BigEndian.Uint16(m[4:]),
		Peer:      binary.BigEndian.Uint16(m[6:]),
		Interface: binary.NativeEndian.Uint32(m[40:]),
		Cookie:    uint64(binary.NativeEndian.Uint32(m[44:])) | uint64(binary.NativeEndian.Uint32(m[48:]))<<32,
		Queue:     binary.NativeEndian.Uint32(m[56:]),
		Limit:     binary.NativeEndian.Uint32(m[60:]),
		UID:       binary.NativeEndian.Uint32(m[64:]),
		Inode:     uint64(binary.NativeEndian.Uint32(m[68:])),
	}
	if m[0] == unix.AF_INET6 {
		s.Addr = netip.AddrFrom16([16]byte(m[8:24]))
	}
	return s, true
}

const (
	udiagShowName   = 1 << 0
	udiagShowVFS    = 1 << 1
	udiagShowRqlen  = 1 << 4
	unixDiagName    = 0
	unixDiagVFS     = 1
	unixDiagRqlen   = 4
	unixDiagMsgSize = 16
)

// DiagUnix calls visit for each Unix socket in one of states, in the network namespace of the calling thread.
func DiagUnix(states SocketState, visit func(DiagSocket)) error {
	return diag(unixDiagReq(0, states, udiagShowName), unix.NLM_F_DUMP, func(m []byte) {
		if s, ok := parseUnixDiag(m); ok {
			visit(s)
		}
	})
}

// UnixBacklog returns the length of the accept queue of the Unix listener with that inode, and its limit.
func UnixBacklog(inode uint64) (used, limit int, err error) {
	err = diag(unixDiagReq(uint32(inode), ^SocketState(0), udiagShowRqlen), 0, func(m []byte) {
		if s, ok := parseUnixDiag(m); ok {
			used, limit = int(s.Queue), int(s.Limit)
		}
	})
	return used, limit, err
}

// UnixFile returns the number, cut to 32 bits, of the file that the Unix socket with that inode is bound to, 0 where there
// is none: at its path may be another by now.
func UnixFile(inode uint64) (file uint32, err error) {
	err = diag(unixDiagReq(uint32(inode), ^SocketState(0), udiagShowVFS), 0, func(m []byte) {
		if s, ok := parseUnixDiag(m); ok {
			file = s.File
		}
	})
	return file, err
}

func unixDiagReq(inode uint32, states SocketState, show uint32) []byte {
	// struct unix_diag_req
	req := make([]byte, 24)
	req[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(req[4:], uint32(states))
	binary.NativeEndian.PutUint32(req[8:], inode)
	binary.NativeEndian.PutUint32(req[12:], show)
	// The cookie that matches any (INET_DIAG_NOCOOKIE).
	binary.NativeEndian.PutUint64(req[16:], ^uint64(0))
	return req
}

// parseUnixDiag reads a struct unix_diag_msg and its attributes.
func parseUnixDiag(m []byte) (DiagSocket, bool) {
	if len(m) < unixDiagMsgSize {
		return DiagSocket{}, false
	}
	s := DiagSocket{Inode: uint64(binary.NativeEndian.Uint32(m[4:]))}
	for m = m[unixDiagMsgSize:]; len(m) >= 4; {
		size := int(binary.NativeEndian.Uint16(m))
		if size < 4 || size > len(m) {
			return DiagSocket{}, false
		}
		value := m[4:size]
		switch typ := binary.NativeEndian.Uint16(m[2:]); {
		case typ == unixDiagName:
			s.Name = unixName(value)
		case typ == unixDiagVFS && len(value) >= 4:
			s.File = binary.NativeEndian.Uint32(value)
		case typ == unixDiagRqlen && len(value) >= 8:
			s.Queue, s.Limit = binary.NativeEndian.Uint32(value), binary.NativeEndian.Uint32(value[4:])
		}
		m = m[min((size+3)&^3, len(m)):]
	}
	return s, true
}

// unixName writes sun_path: "@" for the NUL that begins an abstract name, none of the NULs that HAProxy's abns@ pads it
// with, and "@" for others in it, as /proc/net/unix has it.
func unixName(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	name := []byte(string(b))
	if name[0] == 0 {
		name[0] = '@'
	}
	for len(name) > 1 && name[len(name)-1] == 0 {
		name = name[:len(name)-1]
	}
	return strings.ReplaceAll(string(name), "\x00", "@")
}

// diag sends one request of sock_diag(7) and calls visit for the payload of each answer.
func diag(req []byte, flags uint16, visit func([]byte)) error {
	n, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return os.NewSyscallError("socket(NETLINK_SOCK_DIAG)", err)
	}
	defer unix.Close(n)
	m := make([]byte, unix.NLMSG_HDRLEN+len(req))
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	binary.NativeEndian.PutUint16(m[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|flags)
	copy(m[unix.NLMSG_HDRLEN:], req)
	if err := unix.Sendto(n, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto(NETLINK_SOCK_DIAG)", err)
	}
	buf := make([]byte, 64<<10)
	for {
		var got int
		err := ignoringEINTR(func() (err error) { got, _, err = unix.Recvfrom(n, buf, 0); return err })
		if err != nil {
			return os.NewSyscallError("recvfrom(NETLINK_SOCK_DIAG)", err)
		}
		more, err := parseNetlink(buf[:got], flags&unix.NLM_F_DUMP != 0, visit)
		if err != nil || !more {
			return err
		}
	}
}

// parseNetlink walks the messages of one datagram and reports whether more follow.
func parseNetlink(b []byte, dump bool, visit func([]byte)) (more bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return false, fmt.Errorf("netlink message of %d bytes in a datagram of %d", size, len(b))
		}
		payload := b[unix.NLMSG_HDRLEN:size]
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return false, nil
		case unix.NLMSG_ERROR:
			return false, diagError(payload)
		case unix.SOCK_DIAG_BY_FAMILY:
			visit(payload)
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return dump, nil
}

func diagError(payload []byte) error {
	if len(payload) < 4 {
		return errors.New("sock_diag: truncated error")
	}
	errno := unix.Errno(-int32(binary.NativeEndian.Uint32(payload)))
	if errno == 0 {
		return nil
	}
	if errno == unix.ENOENT || errno == unix.EOPNOTSUPP {
		return fmt.Errorf("%w: %w", ErrNoDiag, os.NewSyscallError("sock_diag", errno))
	}
	return os.NewSyscallError("sock_diag", errno)
}
