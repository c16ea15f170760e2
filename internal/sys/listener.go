package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// IsListener reports whether the borrowed socket n is one at which peers arrive: a listening one, or a datagram socket
// of the internet or unix families that is bound and has no fixed peer.
func IsListener(n int) (bool, error) {
	typ, err := unix.GetsockoptInt(n, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return false, os.NewSyscallError("getsockopt(SO_TYPE)", err)
	}
	if typ != unix.SOCK_DGRAM {
		return flag(n, unix.SOL_SOCKET, unix.SO_ACCEPTCONN), nil
	}
	local, err := unix.Getsockname(n)
	if err != nil {
		return false, nil // a family unknown to x/sys
	}
	bound := false
	switch sa := local.(type) {
	case *unix.SockaddrInet4:
		bound = sa.Port != 0
	case *unix.SockaddrInet6:
		bound = sa.Port != 0
	case *unix.SockaddrUnix:
		name, err := boundName(n) // sa.Name is "@" for a socket without a name
		bound = err == nil && name != ""
	}
	if !bound {
		return false, nil
	}
	_, err = unix.Getpeername(n)
	return err == unix.ENOTCONN, nil
}
