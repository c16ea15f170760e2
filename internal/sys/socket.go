package sys

import (
	"fmt"
	"math"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket describes a socket as the kernel sees it.
type Socket struct {
	// Cookie identifies the socket over all its descriptors in all processes, for its whole life (SO_COOKIE).
	Cookie uint64
	// Inode is the number that /proc and ss show.
	Inode uint64
	// Network is tcp, udp, unix, unixgram, unixpacket, vsock, or "FAMILY/TYPE" in numbers for anything else.
	Network string
	// Address is HOST:PORT, a path, "@name" for the abstract namespace, CID:PORT for vsock; empty for an unbound socket.
	Address string
	Host    string
	Port    int
	// Listening is SO_ACCEPTCONN.
	Listening bool
	ReusePort bool
	// V6Only is IPV6_V6ONLY; FreeBind is IP_FREEBIND or IP_TRANSPARENT; Device is SO_BINDTODEVICE.
	V6Only, FreeBind bool
	Device           string
	Nonblock         bool
}

// Stream reports whether connections are accepted from the socket, as opposed to datagrams received.
func (s Socket) Stream() bool {
	return s.Network == "tcp" || s.Network == "unix" || s.Network == "unixpacket" || s.Network == "vsock"
}

// Inspect describes the borrowed socket descriptor n and changes nothing.
func Inspect(n int) (Socket, error) {
	var s Socket
	typ, err := unix.GetsockoptInt(n, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return s, os.NewSyscallError("getsockopt(SO_TYPE)", err)
	}
	family, err := unix.GetsockoptInt(n, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return s, os.NewSyscallError("getsockopt(SO_DOMAIN)", err)
	}
	if s.Cookie, err = unix.GetsockoptUint64(n, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
		return s, os.NewSyscallError("getsockopt(SO_COOKIE)", err)
	}
	if s.Inode, err = Inode(n); err != nil {
		return s, err
	}
	if s.Nonblock, err = Nonblock(n); err != nil {
		return s, err
	}
	s.Network = networkName(family, typ)
	s.Listening = flag(n, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	s.ReusePort = flag(n, unix.SOL_SOCKET, unix.SO_REUSEPORT)
	s.Device, _ = unix.GetsockoptString(n, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	switch family {
	case unix.AF_INET:
		s.FreeBind = flag(n, unix.IPPROTO_IP, unix.IP_FREEBIND) || flag(n, unix.IPPROTO_IP, unix.IP_TRANSPARENT)
	case unix.AF_INET6:
		s.V6Only = flag(n, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		s.FreeBind = flag(n, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND) || flag(n, unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT)
	}
	s.setAddress(n)
	return s, nil
}

// Accepting reports whether the borrowed socket n listens (SO_ACCEPTCONN).
func Accepting(n int) bool { return flag(n, unix.SOL_SOCKET, unix.SO_ACCEPTCONN) }

func flag(n, level, opt int) bool {
	v, err := unix.GetsockoptInt(n, level, opt)
	return err == nil && v != 0
}

func networkName(family, typ int) string {
	switch {
	case (family == unix.AF_INET || family == unix.AF_INET6) && typ == unix.SOCK_STREAM:
		return "tcp"
	case (family == unix.AF_INET || family == unix.AF_INET6) && typ == unix.SOCK_DGRAM:
		return "udp"
	case family == unix.AF_UNIX && typ == unix.SOCK_STREAM:
		return "unix"
	case family == unix.AF_UNIX && typ == unix.SOCK_DGRAM:
		return "unixgram"
	case family == unix.AF_UNIX && typ == unix.SOCK_SEQPACKET:
		return "unixpacket"
	case family == unix.AF_VSOCK:
		return "vsock"
	}
	return strconv.Itoa(family) + "/" + strconv.Itoa(typ)
}

func (s *Socket) setAddress(n int) {
	if strings.HasPrefix(s.Network, "unix") {
		s.Address, _ = boundName(n)
		return
	}
	sa, err := unix.Getsockname(n)
	if err != nil {
		return
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		s.Host, s.Port = netip.AddrFrom4(sa.Addr).String(), sa.Port
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			ip = ip.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		s.Host, s.Port = ip.String(), sa.Port
	case *unix.SockaddrVM:
		s.Host, s.Port = strconv.FormatUint(uint64(sa.CID), 10), int(sa.Port)
		s.Address = fmt.Sprintf("%d:%d", sa.CID, sa.Port)
		return
	default:
		return
	}
	if strings.Contains(s.Host, ":") {
		s.Address = "[" + s.Host + "]:" + strconv.Itoa(s.Port)
	} else {
		s.Address = s.Host + ":" + strconv.Itoa(s.Port)
	}
}

// boundName returns the name of the borrowed unix socket n as [unixName] writes it, empty if it has none.
// unix.Getsockname would end an abstract name at its first NUL, and call a socket without a name "@".
func boundName(n int) (string, error) {
	var sa unix.RawSockaddrUnix
	size := uint32(unsafe.Sizeof(sa))
	_, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(n), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return "", os.NewSyscallError("getsockname", errno)
	}
	const family = 2
	name := unsafe.Slice((*byte)(unsafe.Pointer(&sa.Path)), len(sa.Path))
	return unixName(name[:min(max(int(size)-family, 0), len(name))]), nil
}

// Backlog returns the length of the accept queue of the borrowed TCP listener n and its limit (TCP_INFO, whose
// tcpi_unacked and tcpi_sacked mean that for a listener).
func Backlog(n int) (used, limit int, err error) {
	info, err := unix.GetsockoptTCPInfo(n, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, 0, os.NewSyscallError("getsockopt(TCP_INFO)", err)
	}
	return int(info.Unacked), int(info.Sacked), nil
}

// Listen calls listen(2) on the borrowed socket n: it makes it listen, or sets the backlog of one that does.
// The kernel caps the backlog at net.core.somaxconn.
func Listen(n, backlog int) error { return os.NewSyscallError("listen", unix.Listen(n, backlog)) }

// BacklogOr returns the backlog that is asked for, or, for 0, one that leaves it to the kernel's cap.
func BacklogOr(backlog int) int {
	if backlog == 0 {
		return math.MaxInt32
	}
	return backlog
}

// DeferAccept returns for how many seconds the borrowed TCP listener n waits for data before it wakes whoever accepts; 0
// is off. The kernel counts in retransmissions.
func DeferAccept(n int) (seconds int, err error) {
	seconds, err = unix.GetsockoptInt(n, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)
	return seconds, os.NewSyscallError("getsockopt(TCP_DEFER_ACCEPT)", err)
}

// SetDeferAccept sets that of the borrowed TCP listener n.
func SetDeferAccept(n, seconds int) error {
	return os.NewSyscallError("setsockopt(TCP_DEFER_ACCEPT)", unix.SetsockoptInt(n, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, seconds))
}

// SetReusePort sets SO_REUSEPORT on the borrowed socket n.
func SetReusePort(n int) error {
	return os.NewSyscallError("setsockopt(SO_REUSEPORT)", unix.SetsockoptInt(n, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

// ListenSpec says what [OpenListener] binds. The zero value of an option leaves the kernel's default.
type ListenSpec struct {
	// Network is tcp, udp, unix, unixgram, unixpacket or vsock.
	Network string
	// Host is an IP literal for tcp and udp; Port is for these and vsock.
	Host string
	Port uint32
	CID  uint32
	// Path is for the unix networks; "@" begins an abstract name.
	Path string

	Backlog     int // 0: as many as the kernel allows
	V6Only      *bool
	FreeBind    bool
	DeferAccept int // seconds
	ReusePort   bool
}

// OpenListener creates, binds and, unless it is a datagram socket, listens on a blocking close-on-exec socket. TCP
// sockets get SO_REUSEADDR, as every server's do. The path of a unix socket must be free. The caller closes it.
func OpenListener(spec ListenSpec) (*FD, error) {
	family, typ, sa, err := spec.resolve()
	if err != nil {
		return nil, err
	}
	n, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	fd := NewFD(n)
	if err := spec.prepare(n, family); err != nil {
		fd.Close()
		return nil, err
	}
	if err := unix.Bind(n, sa); err != nil {
		fd.Close()
		return nil, os.NewSyscallError("bind", err)
	}
	if typ != unix.SOCK_DGRAM {
		if err := Listen(n, BacklogOr(spec.Backlog)); err != nil {
			fd.Close()
			return nil, err
		}
	}
	return fd, nil
}

func (spec ListenSpec) prepare(n, family int) error {
	type option struct {
		use        bool
		level, opt int
		value      int
		name       string
	}
	v6only := 0
	if spec.V6Only != nil && *spec.V6Only {
		v6only = 1
	}
	inet := family == unix.AF_INET || family == unix.AF_INET6
	freebind := option{spec.FreeBind, unix.IPPROTO_IP, unix.IP_FREEBIND, 1, "IP_FREEBIND"}
	if family == unix.AF_INET6 {
		freebind.level, freebind.opt = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
	}
	for _, o := range []option{
		{inet && spec.Network == "tcp", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR"},
		{spec.ReusePort, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, "SO_REUSEPORT"},
		{spec.V6Only != nil && family == unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, v6only, "IPV6_V6ONLY"},
		freebind,
		{spec.DeferAccept > 0, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, spec.DeferAccept, "TCP_DEFER_ACCEPT"},
	} {
		if !o.use {
			continue
		}
		if err := unix.SetsockoptInt(n, o.level, o.opt, o.value); err != nil {
			return os.NewSyscallError("setsockopt("+o.name+")", err)
		}
	}
	return nil
}

func (spec ListenSpec) resolve() (family, typ int, sa unix.Sockaddr, err error) {
	switch spec.Network {
	case "unix", "unixgram", "unixpacket":
		if len(spec.Path) == 0 || len(spec.Path) > 107 {
			return 0, 0, nil, fmt.Errorf("path of a unix socket is %d bytes long, want 1 to 107", len(spec.Path))
		}
		typ = map[string]int{"unix": unix.SOCK_STREAM, "unixgram": unix.SOCK_DGRAM, "unixpacket": unix.SOCK_SEQPACKET}[spec.Network]
		return unix.AF_UNIX, typ, &unix.SockaddrUnix{Name: spec.Path}, nil
	case "vsock":
		return unix.AF_VSOCK, unix.SOCK_STREAM, &unix.SockaddrVM{CID: spec.CID, Port: spec.Port}, nil
	case "tcp":
		typ = unix.SOCK_STREAM
	case "udp":
		typ = unix.SOCK_DGRAM
	default:
		return 0, 0, nil, fmt.Errorf("unknown network %q", spec.Network)
	}
	if spec.Port > 65535 {
		return 0, 0, nil, fmt.Errorf("port %d is beyond 65535", spec.Port)
	}
	host := spec.Host
	if host == "" {
		host = "::"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return 0, 0, nil, err
	}
	if ip.Is4() {
		return unix.AF_INET, typ, &unix.SockaddrInet4{Port: int(spec.Port), Addr: ip.As4()}, nil
	}
	sa6 := &unix.SockaddrInet6{Port: int(spec.Port), Addr: ip.As16()}
	if ip.Zone() != "" {
		if sa6.ZoneId, err = zoneID(ip.Zone()); err != nil {
			return 0, 0, nil, err
		}
	}
	return unix.AF_INET6, typ, sa6, nil
}
