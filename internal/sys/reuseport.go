package sys

import (
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// AttachReusePortIndex makes the SO_REUSEPORT group of the borrowed socket n give every new connection or datagram to
// the socket with that index: a classic BPF program of one instruction (SO_ATTACH_REUSEPORT_CBPF, Linux 4.5, no
// privilege). It replaces the group's program in one step. An index beyond the group falls back to the kernel's hash.
// EINVAL means that the socket is in no group: it got SO_REUSEPORT only after it was bound, and nobody joined it yet.
func AttachReusePortIndex(n int, index uint32) error {
	return attachReturn(n, unix.SO_ATTACH_REUSEPORT_CBPF, "SO_ATTACH_REUSEPORT_CBPF", index)
}

// DetachReusePort removes the program of the group of the borrowed socket n (Linux 5.3): the kernel hashes again.
func DetachReusePort(n int) error {
	return os.NewSyscallError("setsockopt(SO_DETACH_REUSEPORT_BPF)",
		unix.SetsockoptInt(n, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0))
}

// DropIncoming makes the borrowed socket n drop every packet that arrives for it, until [KeepIncoming]. A dropped SYN
// is sent again by its client a second later.
func DropIncoming(n int) error {
	return attachReturn(n, unix.SO_ATTACH_FILTER, "SO_ATTACH_FILTER", 0)
}

// KeepIncoming ends [DropIncoming].
func KeepIncoming(n int) error {
	return os.NewSyscallError("setsockopt(SO_DETACH_FILTER)", unix.SetsockoptInt(n, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
}

// HideListener keeps new connections from the borrowed TCP listener n, for all who have it open: they find another
// listener of their address, or are refused. What waits in its queue and what has begun its handshake still comes, and
// whoever accepts from it notices nothing. There is no way back (SO_BINDTOIFINDEX, to an interface that there is not;
// Linux 5.7 without privilege). It stays in its SO_REUSEPORT group: a SYN for which the group is asked and n found is dropped.
func HideListener(n int) error {
	const nowhere = math.MaxInt32
	if at, err := unix.GetsockoptInt(n, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX); err == nil && at == nowhere {
		return nil // another change would need privilege
	}
	return os.NewSyscallError("setsockopt(SO_BINDTOIFINDEX)", unix.SetsockoptInt(n, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, nowhere))
}

// HideDatagrams keeps datagrams from the borrowed UDP socket n, which is bound to one address of this host, for all who have
// it open: they find another socket of the address, or are refused. What waits in it can still be read, and it can still send
// to whom it names. It is connected to a peer that there is not, and its SO_REUSEPORT group loses its program, by which the
// kernel would find it all the same.
func HideDatagrams(n int) error {
	if _, err := unix.Getpeername(n); err == nil {
		return nil
	}
	sa, err := unix.Getsockname(n)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	const discard = 9
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		sa.Port = discard
		if sa.Addr == [4]byte{} {
			return errWildcard
		}
	case *unix.SockaddrInet6:
		sa.Port = discard
		if sa.Addr == [16]byte{} {
			return errWildcard
		}
	default:
		return os.NewSyscallError("connect", unix.EAFNOSUPPORT)
	}
	_ = DetachReusePort(n) // there may be none; when it is connected it is in the group no more
	return os.NewSyscallError("connect", unix.Connect(n, sa))
}

// errWildcard: connect(2) would bind it to an address, from which then all would seem to come that it sends.
var errWildcard = errors.New("a UDP socket that is bound to no single address cannot be hidden")

func attachReturn(n, opt int, name string, value uint32) error {
	program := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: value}}
	err := unix.SetsockoptSockFprog(n, unix.SOL_SOCKET, opt, &unix.SockFprog{Len: 1, Filter: &program[0]})
	return os.NewSyscallError("setsockopt("+name+")", err)
}

// ClearReusePort clears SO_REUSEPORT on the borrowed socket n.
func ClearReusePort(n int) error {
	return os.NewSyscallError("setsockopt(SO_REUSEPORT)", unix.SetsockoptInt(n, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0))
}

// SocketOwner returns the user id under which the borrowed socket n was created: only sockets of one owner form a
// SO_REUSEPORT group.
func SocketOwner(n int) (uint32, error) {
	var st unix.Stat_t
	err := ignoringEINTR(func() error { return unix.Fstat(n, &st) })
	return st.Uid, os.NewSyscallError("fstat", err)
}

// SetSocketOwner gives the borrowed socket n, not bound yet, to another user id. It needs CAP_CHOWN.
func SetSocketOwner(n int, uid uint32) error {
	return os.NewSyscallError("fchown", unix.Fchown(n, int(uid), -1))
}

// Twin returns a new, unbound, blocking, close-on-exec socket of the type of the borrowed inet socket n, with
// SO_REUSEPORT and with every option that can be set on a listener and differs on n from a fresh socket's. Groups
// joined, filters and linger times are not copied. The caller closes it.
func Twin(n int) (*FD, error) {
	var kind [3]int
	for i, opt := range []int{unix.SO_DOMAIN, unix.SO_TYPE, unix.SO_PROTOCOL} {
		v, err := unix.GetsockoptInt(n, unix.SOL_SOCKET, opt)
		if err != nil {
			return nil, os.NewSyscallError("getsockopt", err)
		}
		kind[i] = v
	}
	t, err := unix.Socket(kind[0], kind[1]|unix.SOCK_CLOEXEC, kind[2])
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	fd := NewFD(t)
	if err := SetReusePort(t); err != nil {
		fd.Close()
		return nil, err
	}
	if err := copyOptions(n, t); err != nil {
		fd.Close()
		return nil, err
	}
	return fd, nil
}

// Protocol returns the IP protocol of the borrowed socket n: 6 for TCP, 17 for UDP, 262 for MPTCP, 0 for a Unix socket.
func Protocol(n int) (int, error) {
	p, err := unix.GetsockoptInt(n, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	return p, os.NewSyscallError("getsockopt(SO_PROTOCOL)", err)
}

// BindAs binds the borrowed socket n to the address of the borrowed socket other.
func BindAs(n, other int) error {
	sa, err := unix.Getsockname(other)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	return os.NewSyscallError("bind", unix.Bind(n, sa))
}

// socketOption is an integer option; halved ones read back as twice of what was set.
type socketOption struct {
	level, opt int
	name       string
	halved     bool
}

var twinOptions = []socketOption{
	{unix.SOL_SOCKET, unix.SO_REUSEADDR, "SO_REUSEADDR", false},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE, "SO_KEEPALIVE", false},
	{unix.SOL_SOCKET, unix.SO_BROADCAST, "SO_BROADCAST", false},
	{unix.SOL_SOCKET, unix.SO_MARK, "SO_MARK", false},
	{unix.SOL_SOCKET, unix.SO_RCVBUF, "SO_RCVBUF", true},
	{unix.SOL_SOCKET, unix.SO_SNDBUF, "SO_SNDBUF", true},
	{unix.SOL_SOCKET, unix.SO_TIMESTAMP, "SO_TIMESTAMP", false},
	{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, "SO_TIMESTAMPNS", false},
	{unix.IPPROTO_IP, unix.IP_FREEBIND, "IP_FREEBIND", false},
	{unix.IPPROTO_IP, unix.IP_TRANSPARENT, "IP_TRANSPARENT", false},
	{unix.IPPROTO_IP, unix.IP_TOS, "IP_TOS", false},
	{unix.SOL_SOCKET, unix.SO_PRIORITY, "SO_PRIORITY", false}, // which IP_TOS sets, too
	{unix.IPPROTO_IP, unix.IP_TTL, "IP_TTL", false},
	{unix.IPPROTO_IP, unix.IP_PKTINFO, "IP_PKTINFO", false},
	{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, "IP_MTU_DISCOVER", false},
	{unix.IPPROTO_IP, unix.IP_RECVTOS, "IP_RECVTOS", false},
	{unix.IPPROTO_IP, unix.IP_RECVTTL, "IP_RECVTTL", false},
	{unix.IPPROTO_IP, unix.IP_RECVERR, "IP_RECVERR", false},
	{unix.IPPROTO_IP, unix.IP_RECVORIGDSTADDR, "IP_RECVORIGDSTADDR", false},
	{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, "IPV6_V6ONLY", false},
	{unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, "IPV6_TRANSPARENT", false},
	{unix.IPPROTO_IPV6, unix.IPV6_TCLASS, "IPV6_TCLASS", false},
	{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, "IPV6_UNICAST_HOPS", false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, "IPV6_RECVPKTINFO", false},
	{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, "IPV6_MTU_DISCOVER", false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, "IPV6_RECVTCLASS", false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, "IPV6_RECVHOPLIMIT", false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, "IPV6_RECVERR", false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVORIGDSTADDR, "IPV6_RECVORIGDSTADDR", false},
	{unix.IPPROTO_TCP, unix.TCP_NODELAY, "TCP_NODELAY", false},
	{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, "TCP_DEFER_ACCEPT", false},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, "TCP_KEEPIDLE", false},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, "TCP_KEEPINTVL", false},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, "TCP_KEEPCNT", false},
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, "TCP_USER_TIMEOUT", false},
	{unix.IPPROTO_TCP, unix.TCP_MAXSEG, "TCP_MAXSEG", false},
	{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, "TCP_NOTSENT_LOWAT", false},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN, "TCP_FASTOPEN", false},
	{unix.IPPROTO_UDP, unix.UDP_GRO, "UDP_GRO", false},
}

// copyOptions sets on to what reads differently there than on from. An option that one of them does not have is no
// option of this kind of socket.
func copyOptions(from, to int) error {
	for _, o := range twinOptions {
		want, err := unix.GetsockoptInt(from, o.level, o.opt)
		if err != nil {
			continue
		}
		have, err := unix.GetsockoptInt(to, o.level, o.opt)
		if err != nil || have == want {
			continue
		}
		if o.halved {
			want /= 2
		}
		if err := unix.SetsockoptInt(to, o.level, o.opt, want); err != nil {
			return fmt.Errorf("copy option %s: %w", o.name, err)
		}
	}
	for _, o := range []struct {
		level, opt int
		name       string
	}{
		{unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "SO_BINDTODEVICE"},
		{unix.IPPROTO_TCP, unix.TCP_CONGESTION, "TCP_CONGESTION"},
	} {
		want, err := unix.GetsockoptString(from, o.level, o.opt)
		if err != nil || want == "" {
			continue
		}
		if have, err := unix.GetsockoptString(to, o.level, o.opt); err != nil || have == want {
			continue
		}
		if err := unix.SetsockoptString(to, o.level, o.opt, want); err != nil {
			return fmt.Errorf("copy option %s: %w", o.name, err)
		}
	}
	return nil
}

// Readable reports whether something waits in the queue of the borrowed socket n: a connection to accept or a datagram.
func Readable(n int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(n), Events: unix.POLLIN}}
	err := ignoringEINTR(func() error { _, err := unix.Poll(fds, 0); return err })
	return fds[0].Revents&unix.POLLIN != 0, os.NewSyscallError("poll", err)
}
