package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
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

// takeSockets reads LISTEN_FDS as sd_listen_fds_with_names(3) does, then binds what -bind says.
func takeSockets(o *options) ([]socket, error) {
	var sockets []socket
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if n > 0 && os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, fmt.Errorf("LISTEN_PID is %q, not %d", os.Getenv("LISTEN_PID"), os.Getpid())
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for i := range n {
		fd := firstFD + i
		syscall.CloseOnExec(fd)
		s := socket{fd: fd}
		if i < len(names) {
			s.name = names[i]
		}
		typ, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
		if err != nil {
			fmt.Printf("worker: descriptor %d (%s) is no socket\n", fd, s.name)
			continue
		}
		s.datagram = typ == syscall.SOCK_DGRAM
		s.address = address(fd)
		if o.backlog > 0 && !s.datagram {
			if err := syscall.Listen(fd, o.backlog); err != nil {
				return nil, fmt.Errorf("listen on %s: %w", s.address, err)
			}
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

func bind(spec string, o *options) (socket, error) {
	network, rest, _ := strings.Cut(spec, ":")
	typ := syscall.SOCK_STREAM
	if network == "udp" {
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

func sockaddr(network, rest string) (int, syscall.Sockaddr, error) {
	if network == "unix" {
		return syscall.AF_UNIX, &syscall.SockaddrUnix{Name: rest}, nil
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

// options are the socket options that a supervisor must not change, as name=value.
func (s socket) options() string {
	values := []struct {
		name       string
		level, opt int
	}{
		{"reuseaddr", syscall.SOL_SOCKET, syscall.SO_REUSEADDR}, {"reuseport", syscall.SOL_SOCKET, soReusePort},
		{"keepalive", syscall.SOL_SOCKET, syscall.SO_KEEPALIVE}, {"rcvbuf", syscall.SOL_SOCKET, syscall.SO_RCVBUF},
		{"sndbuf", syscall.SOL_SOCKET, syscall.SO_SNDBUF}, {"priority", syscall.SOL_SOCKET, syscall.SO_PRIORITY},
		{"passcred", syscall.SOL_SOCKET, syscall.SO_PASSCRED}, {"mark", syscall.SOL_SOCKET, syscall.SO_MARK},
		{"nodelay", syscall.IPPROTO_TCP, syscall.TCP_NODELAY}, {"defer", syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT},
		{"tos", syscall.IPPROTO_IP, syscall.IP_TOS}, {"ttl", syscall.IPPROTO_IP, syscall.IP_TTL},
		{"v6only", syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY}, {"acceptconn", syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN},
	}
	var b strings.Builder
	for _, o := range values {
		if v, err := syscall.GetsockoptInt(s.fd, o.level, o.opt); err == nil {
			fmt.Fprintf(&b, " %s=%d", o.name, v)
		}
	}
	return b.String()
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
