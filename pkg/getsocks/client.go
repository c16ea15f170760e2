package getsocks

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/8265a91a/supervisor/internal/sys"
)

const request = "_getsocks\n"

// MaxSockets is the largest number of sockets that a peer may announce.
const MaxSockets = 65536

// ErrNothing says that the peer closed the connection without a byte. HAProxy does this both when it has nothing to
// give and when it may not: the two cannot be told apart from outside.
var ErrNothing = errors.New(`the peer closed without an answer: its stats socket lacks "expose-fd listeners", or it has no sockets`)

// Fetch connects to the HAProxy stats socket at path ("@" begins an abstract name) and returns all sockets of that
// process, the stats socket itself included ([TrimTemp] gives its name). The caller closes them. On an error every
// descriptor is closed. A peer that falls silent, or whose queue of connections is full, is waited for until ctx ends.
func Fetch(ctx context.Context, path string) ([]Socket, error) {
	return FetchFrom(ctx, path, func(int) error { return nil })
}

// FetchFrom is [Fetch], but asks for nothing, and returns the error, if accept refuses the process that listens at path:
// the one that last called listen(2) there, of HAProxy's master-worker mode mostly the master; 0 if it is in a PID
// namespace that is not seen from here.
func FetchFrom(ctx context.Context, path string, accept func(pid int) error) ([]Socket, error) {
	conn, err := dial(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("fetch sockets: %w", err)
	}
	defer conn.Close()
	peer, err := sys.PeerCred(conn)
	if err == nil {
		err = accept(peer.PID)
	}
	if err != nil {
		return nil, fmt.Errorf("fetch sockets from %s: %w", path, err)
	}
	sockets, err := FetchConn(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("fetch sockets from %s: %w", path, err)
	}
	return sockets, nil
}

// FetchConn is [Fetch] over the connection c, which it borrows and whose deadline it uses and clears.
func FetchConn(ctx context.Context, c *net.UnixConn) ([]Socket, error) {
	defer bind(ctx, c)()
	if _, err := c.Write([]byte(request)); err != nil && !hungUp(err) {
		return nil, explain(ctx, err)
	}
	count, err := readCount(c)
	if err != nil || count == 0 {
		return nil, explain(ctx, err)
	}
	f := fetch{conn: c, count: count}
	if err := f.run(); err != nil {
		sys.CloseAll(f.fds)
		return nil, explain(ctx, err)
	}
	return f.sockets(), nil
}

// readCount reads exactly 4 bytes: the kernel would merge more with the first batch.
func readCount(c *net.UnixConn) (int, error) {
	var b [4]byte
	for have := 0; have < len(b); {
		m, err := sys.ReadMessage(c, b[have:])
		if err != nil && !hungUp(err) {
			return 0, fmt.Errorf("read the number of sockets: %w", err)
		}
		if len(m.FDs) > 0 {
			sys.CloseAll(m.FDs)
			return 0, errors.New("the peer sent descriptors before it said how many")
		}
		if m.N == 0 && have == 0 {
			return 0, ErrNothing
		}
		if m.N == 0 {
			return 0, fmt.Errorf("read the number of sockets: %w", io.ErrUnexpectedEOF)
		}
		have += m.N
	}
	count := int32(binary.NativeEndian.Uint32(b[:]))
	if count < 0 || count > MaxSockets {
		return 0, fmt.Errorf("the peer announced %d sockets (bytes %q), not 0 to %d: it may not speak _getsocks", count, b, MaxSockets)
	}
	if soft, _, err := sys.NofileLimit(); err == nil && uint64(count) >= soft {
		return 0, fmt.Errorf("the peer announced %d sockets, but the limit on open descriptors (RLIMIT_NOFILE) is %d", count, soft)
	}
	return int(count), nil
}

// fetch collects what arrives after the count. Descriptors and metadata are two streams: a batch of metadata may
// come in pieces, and a piece may come together with the next batch.
type fetch struct {
	conn    *net.UnixConn
	count   int
	fds     []*FD
	records []record
	partial []byte
}

func (f *fetch) run() error {
	buf := make([]byte, sys.MaxRights*maxRecord)
	for len(f.fds) < f.count || len(f.records) < f.count {
		m, err := sys.ReadMessage(f.conn, buf)
		if err != nil && !hungUp(err) {
			return fmt.Errorf("receive sockets (%d of %d so far): %w", len(f.fds), f.count, err)
		}
		if m.N == 0 {
			return fmt.Errorf("the peer closed the connection after %d of %d sockets", min(len(f.fds), len(f.records)), f.count)
		}
		// Whatever follows, these are ours to close.
		acknowledged := len(f.fds)
		f.fds = append(f.fds, m.FDs...)
		if err := f.accept(m.FDs, buf[:m.N]); err != nil {
			return err
		}
		if len(m.FDs) > 0 {
			if err := f.acknowledge(acknowledged); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fetch) accept(fds []*FD, metadata []byte) error {
	if len(f.fds) > f.count {
		return fmt.Errorf("the peer announced %d sockets and sent at least %d", f.count, len(f.fds))
	}
	for _, fd := range fds {
		kind, err := sys.KindOf(fd.Num())
		if err != nil {
			return err
		}
		if kind != sys.KindSocket {
			return errors.New("the peer sent a descriptor that is not a socket")
		}
	}
	f.partial = append(f.partial, metadata...)
	for {
		r, rest, ok := cutRecord(f.partial)
		if !ok {
			break
		}
		f.records, f.partial = append(f.records, r), rest
		if len(f.records) > f.count {
			break
		}
	}
	if len(f.records) > f.count || len(f.records) == f.count && len(f.partial) > 0 {
		return fmt.Errorf("the peer sent metadata beyond that of the %d sockets it announced", f.count)
	}
	return nil
}

// acknowledge answers a batch with the number of sockets before it, as HAProxy does. That the peer is gone is no
// error here: old versions do not wait for the last acknowledgement, and what is still queued can be read.
func (f *fetch) acknowledge(before int) error {
	_, err := f.conn.Write(binary.NativeEndian.AppendUint32(nil, uint32(before)))
	if err != nil && !hungUp(err) && !(len(f.fds) == f.count && len(f.records) == f.count) {
		return fmt.Errorf("acknowledge sockets (%d of %d so far): %w", len(f.fds), f.count, err)
	}
	return nil
}

func (f *fetch) sockets() []Socket {
	sockets := make([]Socket, f.count)
	for i := range sockets {
		sockets[i] = Socket{FD: f.fds[i], Namespace: f.records[i].namespace, Interface: f.records[i].iface}
	}
	return sockets
}

// hungUp reports that the peer has closed its end.
func hungUp(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
