package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"

	"github.com/8265a91a/supervisor/internal/sys"
)

// maxNotify is the longest datagram that is read, as in systemd.
const maxNotify = 4096

// Notify is the NOTIFY_SOCKET of one generation. It has a path, so that a worker can still reach it after it changed
// its user, and after the supervisor was replaced.
type Notify struct {
	// OnError, when set before Run, gets an error for each message that was dropped or only partly understood.
	OnError func(error)

	path string
	fd   *sys.FD
	conn *net.UnixConn
	id   fs.FileInfo

	close sync.Once
}

// ListenNotify binds a socket that everybody may write to at path, in the place of a socket that an earlier process
// may have left there. The caller calls Run, and Close or Release in the end.
func ListenNotify(path string) (*Notify, error) {
	spec := sys.ListenSpec{Network: "unixgram", Path: path}
	fd, err := sys.OpenListener(spec)
	if errors.Is(err, syscall.EADDRINUSE) {
		if st, statErr := os.Lstat(path); statErr == nil && st.Mode()&fs.ModeSocket != 0 {
			os.Remove(path)
			fd, err = sys.OpenListener(spec)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listen on notify socket %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		fd.Close()
		os.Remove(path)
		return nil, fmt.Errorf("listen on notify socket %s: %w", path, err)
	}
	return AdoptNotify(fd, path)
}

// AdoptNotify takes ownership of fd, a notify socket that was bound at path earlier, with what is queued in it.
func AdoptNotify(fd *FD, path string) (*Notify, error) {
	n := &Notify{path: path, fd: fd}
	info, err := sys.Inspect(fd.Num())
	if err == nil && info.Network != "unixgram" {
		err = fmt.Errorf("descriptor is a %s socket, not unixgram", info.Network)
	}
	var dup *sys.FD
	if err == nil {
		dup, err = fd.Dup()
	}
	if err == nil {
		n.conn, err = sys.UnixConn(dup)
	}
	if err != nil {
		fd.Close()
		return nil, fmt.Errorf("take notify socket %s: %w", path, err)
	}
	if err := sys.PassCredentials(n.conn); err != nil {
		n.Release()
		return nil, fmt.Errorf("take notify socket %s: %w", path, err)
	}
	n.id, _ = os.Lstat(path)
	return n, nil
}

// FD lends the socket's descriptor, for the FD store; it is valid until Close or Release.
func (n *Notify) FD() int { return n.fd.Num() }

// Path is what the worker gets as NOTIFY_SOCKET.
func (n *Notify) Path() string { return n.path }

// Run reads messages, one at a time, until Close or Release. A message is dropped unless allowed accepts its sender.
// handle is called in the order of arrival and the next message is read when it returns, so a flood fills only the
// senders' queue. handle owns Message.FDs, which come only with FDSTORE=1. A barrier is answered, by closing its
// descriptor, when handle has returned for everything before it and for itself.
func (n *Notify) Run(allowed func(pid int, uid uint32) bool, handle func(Message)) {
	buf := make([]byte, maxNotify)
	for {
		raw, err := sys.ReadMessage(n.conn, buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			n.report(err)
			var broken *net.OpError
			if errors.As(err, &broken) {
				return
			}
			continue
		}
		n.deliver(raw, buf[:raw.N], allowed, handle)
	}
}

func (n *Notify) deliver(raw sys.Message, text []byte, allowed func(int, uint32) bool, handle func(Message)) {
	rest := raw.FDs
	defer func() { sys.CloseAll(rest) }()
	switch {
	case raw.Cred == nil || raw.Cred.PID == 0:
		n.report(errors.New("notify message dropped: its sender is unknown"))
		return
	case !allowed(raw.Cred.PID, raw.Cred.UID):
		n.report(fmt.Errorf("notify message of process %d (uid %d) dropped: it does not belong to the worker", raw.Cred.PID, raw.Cred.UID))
		return
	case raw.Truncated:
		n.report(fmt.Errorf("notify message of process %d dropped: it is longer than %d bytes", raw.Cred.PID, maxNotify))
		return
	}
	m, err := ParseNotify(text)
	if err != nil {
		n.report(fmt.Errorf("process %d: %w", raw.Cred.PID, err))
	}
	m.PID, m.UID = raw.Cred.PID, raw.Cred.UID
	if m.FDStore && !m.Barrier {
		m.FDs, rest = rest, nil
	}
	handle(m)
}

func (n *Notify) report(err error) {
	if n.OnError != nil {
		n.OnError(err)
	}
}

// Close ends Run and removes the path, unless another socket has taken it over.
func (n *Notify) Close() error { return n.end(true) }

// Release ends Run and leaves the path, for a process that goes on with the same socket.
func (n *Notify) Release() error { return n.end(false) }

func (n *Notify) end(remove bool) error {
	var err error
	n.close.Do(func() {
		if now, statErr := os.Lstat(n.path); remove && n.id != nil && statErr == nil && os.SameFile(n.id, now) {
			err = os.Remove(n.path)
		}
		err = errors.Join(err, n.conn.Close(), n.fd.Close())
	})
	return err
}
