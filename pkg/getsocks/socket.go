package getsocks

import (
	"strings"

	"github.com/8265a91a/supervisor/internal/sys"
)

// FD owns one descriptor: Num borrows it, Close closes it once, Disown gives it out.
type FD = sys.FD

// Socket is one socket with the two names that HAProxy keeps beside it.
type Socket struct {
	FD *FD
	// Namespace is the name of the network namespace of the bind line, empty for the process's own.
	Namespace string
	// Interface is the name of the interface of the bind line, empty for none.
	Interface string
}

// CloseAll closes the descriptor of every socket.
func CloseAll(sockets []Socket) {
	for _, s := range sockets {
		s.FD.Close()
	}
}

// TrimTemp returns the path that HAProxy serves a unix socket on, given the path that the socket was bound to: HAProxy
// binds to PATH.PID.tmp and renames it, and the kernel goes on reporting the temporary name. Other paths come back as they are.
func TrimTemp(path string) string {
	base, ok := strings.CutSuffix(path, ".tmp")
	if !ok {
		return path
	}
	dot := strings.LastIndexByte(base, '.')
	if dot <= 0 || dot == len(base)-1 || strings.Trim(base[dot+1:], "0123456789") != "" {
		return path
	}
	return base[:dot]
}
