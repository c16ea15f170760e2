package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Watch waits until something arrives at one of several sockets, takes nothing from them, and changes none of their
// flags. It is an epoll set that the Go runtime polls: nobody wakes up for nothing. Its registrations end with Close,
// whoever else has the sockets open.
type Watch struct{ file *os.File }

// NewWatch watches the borrowed sockets. The caller closes the watch.
func NewWatch(sockets []int) (*Watch, error) {
	n, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	epoll := NewFD(n)
	for _, s := range sockets {
		// Each tells once: one that somebody shut down would tell so (EPOLLHUP) without end.
		event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT}
		if err := unix.EpollCtl(n, unix.EPOLL_CTL_ADD, s, &event); err != nil {
			epoll.Close()
			return nil, os.NewSyscallError("epoll_ctl(EPOLL_CTL_ADD)", err)
		}
	}
	if err := SetNonblock(n, true); err != nil { // of the epoll set: the runtime polls nothing else
		epoll.Close()
		return nil, err
	}
	return &Watch{epoll.File("watch")}, nil
}

// Wait returns nil when something waits at a socket, and an error when the watch is closed meanwhile. It may be called
// once.
func (w *Watch) Wait() error {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Read(func(fd uintptr) bool {
		for {
			var events [1]unix.EpollEvent
			var n int
			inner = ignoringEINTR(func() (err error) { n, err = unix.EpollWait(int(fd), events[:], 0); return err })
			if inner != nil || n == 0 || events[0].Events&unix.EPOLLIN != 0 {
				return inner != nil || n > 0
			}
		}
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("epoll_wait", inner)
}

// Close ends the watch, and a Wait under way. Closing twice, or a nil Watch, is harmless.
func (w *Watch) Close() {
	if w != nil {
		w.file.Close()
	}
}
