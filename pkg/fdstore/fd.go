package fdstore

import (
	"syscall"

	"github.com/8265a91a/supervisor/internal/sys"
)

// FD owns one descriptor: Num borrows its number, Dup returns a second FD, Close closes it, once, Disown gives it to the
// caller. A function that takes an *FD borrows it unless its documentation says that it takes ownership. It is the same
// type in all packages beside this one. The zero value owns nothing.
type FD = sys.FD

// NewFD takes ownership of descriptor n, which must be close-on-exec and owned by nobody else, an [os.File] least of all.
func NewFD(n int) *FD { return sys.NewFD(n) }

// DupConn returns a duplicate of the descriptor of c, a listener, connection or file, which stays its owner's. Unlike
// c's File method it leaves O_NONBLOCK, which all holders share, as it is. The caller closes the duplicate.
func DupConn(c syscall.Conn) (*FD, error) { return sys.DupConn(c) }
