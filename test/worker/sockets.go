package main

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const (
	firstFD     = 3
	soReusePort = 15
)

// socket is one taken or bound descriptor.
type socket struct {
	fd       int
	name     string
	datagram bool
	address  string
}

// takeSockets reads LISTEN_FDS as sd_listen_fds_with_names(3) does, takes what -fd says and binds what -bind says.
func takeSockets(o *options) ([]socket, error) {
	var sockets []socket
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if n > 0 && !o.anyPID && os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, fmt.Errorf("LISTEN_PID is %q, not %d", os.Getenv("LISTEN_PID"), os.Getpid())
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for i := range n {
		s := socket{fd: firstFD + i}
		if i < len(names) {
			s.name = names[i]
		}
		if err := s.inspect(); err != nil {
			fmt.Printf("worker: descriptor %d (%s) is no socket\n", s.fd, s.name)
			continue
		}
		switch {
		case slices.Contains(o.closed, s.address):
			syscall.Close(s.fd)
			continue
		case slices.Contains(o.idle, s.address):
			continue
		}
		if o.backlog > 0 && !s.datagram {
			if err := syscall.Listen(s.fd, o.backlog); err != nil {
				return nil, fmt.Errorf("listen on %s: %w", s.address, err)
			}
		}
		sockets = append(sockets, s)
	}
	for _, text := range o.fds {
		fd, err := strconv.Atoi(text)
		s := socket{fd: fd, name: text}
		if err == nil {
			err = s.inspect()
		}
		if err != nil {
			return nil, fmt.Errorf("take descriptor %s: %w", text, err)
		}
		sockets = append(sockets, s)
	}
	for _, b := range o.binds {
		s, err := bind(b, o)
		if err != nil {
			return nil, fmt.Errorf("bind %s: %w", b, err)
		}
		sockets = append(sockets, s)
	}
	return sockets, nil
}

// inspect finds out what the descriptor is.
func (s *socket) inspect() error {
	syscall.CloseOnExec(s.fd)
	typ, err := syscall.GetsockoptInt(s.fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	s.datagram, s.address = typ == syscall.SOCK_DGRAM, address(s.fd)
	return err
}

func bind(spec string, o *options) (socket, error) {
	network, rest, _ := strings.Cut(spec, ":")
	typ := syscall.SOCK_STREAM
	if network == "udp" || network == "netlink" {
		typ = syscall.SOCK_DGRAM
	}
	family, sa, err := sockaddr(network, rest)
	if err != nil {
		return socket{}, err
	}
	fd, err := syscall.Socket(family, typ|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return socket{}, err
	}
	if network == "unix" {
		_ = syscall.Unlink(rest)
	} else {
		_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
		if o.reusePort {
			_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, soReusePort, 1)
		}
	}
	if err := syscall.Bind(fd, sa); err != nil {
		syscall.Close(fd)
		return socket{}, err
	}
	if typ == syscall.SOCK_STREAM {
		if err := syscall.Listen(fd, max(o.backlog, 511)); err != nil {
			syscall.Close(fd)
			return socket{}, err
		}
	}
	return socket{fd: fd, name: spec, datagram: typ == syscall.SOCK_DGRAM, address: address(fd)}, nil
}

// bindOnRequest does for ever what -heir says.
func bindOnRequest(file string) error {
	for ; ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		said := ""
		for spec := range strings.FieldsSeq(string(text)) {
			s, err := bind(spec, &options{})
			if err == nil {
				syscall.Close(s.fd)
			}
			said += fmt.Sprintln(spec, err)
		}
		err = os.WriteFile(file+".new", []byte(said), 0o600)
		if err == nil {
			err = os.Remove(file)
		}
		if err == nil {
			err = os.Rename(file+".new", file+".said")
		}
		if err != nil {
			return err
		}
	}
}

func sockaddr(network, rest string) (int, syscall.Sockaddr, error) {
	switch network {
	case "unix":
		return syscall.AF_UNIX, &syscall.SockaddrUnix{Name: rest}, nil
	case "netlink":
		return syscall.AF_NETLINK, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}, nil
	}
	a, err := net.ResolveTCPAddr("tcp", rest)
	if err != nil {
		return 0, nil, err
	}
	if ip4 := a.IP.To4(); ip4 != nil {
		return syscall.AF_INET, &syscall.SockaddrInet4{Port: a.Port, Addr: [4]byte(ip4)}, nil
	}
	return syscall.AF_INET6, &syscall.SockaddrInet6{Port: a.Port, Addr: [16]byte(a.IP.To16())}, nil
}

func address(fd int) string {
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		return err.Error()
	}
	switch a := sa.(type) {
	case *syscall.SockaddrInet4:
		return net.JoinHostPort(net.IP(a.Addr[:]).String(), strconv.Itoa(a.Port))
	case *syscall.SockaddrInet6:
		return net.JoinHostPort(net.IP(a.Addr[:]).String(), strconv.Itoa(a.Port))
	case *syscall.SockaddrUnix:
		return a.Name
	}
	return "?"
}

// options are the socket options that a supervisor must not change, as name=value; those that this kind of socket does
// not have are left out. The numbers are of <linux/in6.h>, <linux/tcp.h> and <linux/udp.h>.
func (s socket) options() string {
	const socket, ip, ip6, tcp, udp = syscall.SOL_SOCKET, syscall.IPPROTO_IP, syscall.IPPROTO_IPV6, syscall.IPPROTO_TCP, syscall.IPPROTO_UDP
	var b strings.Builder
	for _, o := range []struct {
		name       string
		level, opt int
	}{
		{"reuseaddr", socket, syscall.SO_REUSEADDR}, {"reuseport", socket, soReusePort}, {"acceptconn", socket, syscall.SO_ACCEPTCONN},
		{"keepalive", socket, syscall.SO_KEEPALIVE}, {"broadcast", socket, syscall.SO_BROADCAST}, {"priority", socket, syscall.SO_PRIORITY},
		{"mark", socket, syscall.SO_MARK}, {"rcvbuf", socket, syscall.SO_RCVBUF}, {"sndbuf", socket, syscall.SO_SNDBUF},
		{"passcred", socket, syscall.SO_PASSCRED}, {"timestamp", socket, syscall.SO_TIMESTAMP}, {"timestampns", socket, syscall.SO_TIMESTAMPNS},
		{"ip_freebind", ip, syscall.IP_FREEBIND}, {"ip_transparent", ip, syscall.IP_TRANSPARENT}, {"ip_tos", ip, syscall.IP_TOS},
		{"ip_ttl", ip, syscall.IP_TTL}, {"ip_pktinfo", ip, syscall.IP_PKTINFO}, {"ip_mtu_discover", ip, syscall.IP_MTU_DISCOVER},
		{"ip_recvtos", ip, syscall.IP_RECVTOS}, {"ip_recvttl", ip, syscall.IP_RECVTTL}, {"ip_recverr", ip, syscall.IP_RECVERR},
		{"ip_recvorigdstaddr", ip, syscall.IP_RECVORIGDSTADDR},
		{"ipv6_v6only", ip6, syscall.IPV6_V6ONLY}, {"ipv6_transparent", ip6, 75}, {"ipv6_tclass", ip6, syscall.IPV6_TCLASS},
		{"ipv6_unicast_hops", ip6, syscall.IPV6_UNICAST_HOPS}, {"ipv6_recvpktinfo", ip6, syscall.IPV6_RECVPKTINFO},
		{"ipv6_mtu_discover", ip6, syscall.IPV6_MTU_DISCOVER}, {"ipv6_recvtclass", ip6, syscall.IPV6_RECVTCLASS},
		{"ipv6_recvhoplimit", ip6, syscall.IPV6_RECVHOPLIMIT}, {"ipv6_recverr", ip6, syscall.IPV6_RECVERR}, {"ipv6_recvorigdstaddr", ip6, 74},
		{"tcp_nodelay", tcp, syscall.TCP_NODELAY}, {"tcp_defer_accept", tcp, syscall.TCP_DEFER_ACCEPT}, {"tcp_keepidle", tcp, syscall.TCP_KEEPIDLE},
		{"tcp_keepintvl", tcp, syscall.TCP_KEEPINTVL}, {"tcp_keepcnt", tcp, syscall.TCP_KEEPCNT}, {"tcp_user_timeout", tcp, 18},
		{"tcp_maxseg", tcp, syscall.TCP_MAXSEG}, {"tcp_notsent_lowat", tcp, 25}, {"tcp_fastopen", tcp, 23}, {"udp_gro", udp, 104},
	} {
		if v, err := syscall.GetsockoptInt(s.fd, o.level, o.opt); err == nil {
			fmt.Fprintf(&b, " %s=%d", o.name, v)
		}
	}
	if v, err := text(s.fd, tcp, syscall.TCP_CONGESTION); err == nil {
		b.WriteString(" tcp_congestion=" + v)
	}
	if v, err := text(s.fd, socket, syscall.SO_BINDTODEVICE); err == nil {
		b.WriteString(" device=" + v)
	}
	return b.String()
}

// text reads an option that is a string.
func text(fd, level, opt int) (string, error) {
	buf := make([]byte, 64)
	size := uint32(len(buf))
	_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return "", errno
	}
	value, _, _ := strings.Cut(string(buf[:size]), "\x00")
	return value, nil
}

func (s socket) mode() string {
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(s.fd), syscall.F_GETFL, 0)
	if errno != 0 {
		return errno.Error()
	}
	if flags&syscall.O_NONBLOCK != 0 {
		return "nonblock"
	}
	return "block"
}
