package intercept

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

// Serve answers the calls that arrive at the borrowed notification descriptor until no process is left that could make
// one (nil), or ctx is done (its cause). resolve returns the descriptor that is to take the place of the server's, which
// Serve closes, or nil, which lets the kernel bind, as an error does; its flags are left as they are. report, if not nil, is told why a call that is
// ours could not be answered with our socket. Both are called from this goroutine.
func Serve(ctx context.Context, notify *sys.FD, resolve func(Request) (*sys.FD, error), report func(error)) error {
	dup, err := notify.Dup()
	if err != nil {
		return fmt.Errorf("serve bind notifications: %w", err)
	}
	// Non-blocking is only what makes the runtime poll it: the kernel ignores the flag here.
	if err := sys.SetNonblock(dup.Num(), true); err != nil {
		dup.Close()
		return fmt.Errorf("serve bind notifications: %w", err)
	}
	f := dup.File("seccomp notify")
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("serve bind notifications: %w", err)
	}
	s := server{resolve: resolve, report: report}
	for {
		var over bool
		var inner error
		err := raw.Read(func(fd uintptr) bool {
			s.notify = int(fd)
			over, inner = s.drain(ctx)
			return over || inner != nil
		})
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Join(err, inner) != nil:
			return fmt.Errorf("serve bind notifications: %w", errors.Join(err, inner))
		case over:
			return nil
		}
	}
}

type server struct {
	notify  int
	resolve func(Request) (*sys.FD, error)
	report  func(error)
}

// drain answers all calls that wait and reports whether there will be no more.
func (s *server) drain(ctx context.Context) (over bool, err error) {
	for ctx.Err() == nil {
		waiting, over, err := sys.PollBind(s.notify)
		if err != nil || !waiting {
			return over, err
		}
		call, err := sys.ReceiveBind(s.notify)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err != nil {
			return false, err
		}
		s.answer(call)
	}
	return false, nil
}

// answer lets the kernel bind unless everything goes well.
func (s *server) answer(call sys.BindCall) {
	replaced, err := s.replace(call)
	if err != nil && s.report != nil && sys.BindWaits(s.notify, call) {
		s.report(err)
	}
	// An error means that the caller has gone or was interrupted; it then calls again.
	_ = sys.AnswerBind(s.notify, call, !replaced)
}

// replace reports whether our socket is in the place of the caller's. Errors are those of calls that are, or may be, ours.
func (s *server) replace(call sys.BindCall) (bool, error) {
	address, ok, err := readAddress(call)
	if err != nil {
		return false, fmt.Errorf("read address of bind by process %d: %w", call.TID, err)
	}
	if !ok || address.Port() == 0 || !sys.BindWaits(s.notify, call) {
		return false, nil
	}
	c, err := inspect(call)
	if err != nil {
		return false, fmt.Errorf("inspect socket of bind to %s by process %d: %w", address, call.TID, err)
	}
	ours, err := s.resolve(Request{Network: c.socket.Network, Address: address, Nonblock: c.socket.Nonblock, PID: c.pid})
	if err != nil {
		return false, fmt.Errorf("bind to %s by process %d: %w", address, c.pid, err)
	}
	if ours == nil {
		return false, nil
	}
	defer ours.Close()
	if cookie, err := sys.Cookie(ours.Num()); err == nil && cookie == c.socket.Cookie {
		// Replaced already, then a signal interrupted the call and the kernel began it anew.
		return true, nil
	}
	if err := sys.ReplaceBindSocket(s.notify, call, ours.Num(), c.cloexec); err != nil {
		return false, fmt.Errorf("bind to %s by process %d: %w", address, c.pid, err)
	}
	return true, nil
}

// readAddress returns the address that call wants to bind; false for families other than IP.
func readAddress(call sys.BindCall) (netip.AddrPort, bool, error) {
	const maxSockaddr = 128
	if call.Len < 2 || call.Len > maxSockaddr {
		return netip.AddrPort{}, false, nil
	}
	buf := make([]byte, call.Len)
	if err := sys.ReadMemory(call.TID, call.Addr, buf); err != nil {
		return netip.AddrPort{}, false, err
	}
	address, ok := parseSockaddr(buf)
	return address, ok, nil
}

// parseSockaddr reads a sockaddr_in or sockaddr_in6.
func parseSockaddr(b []byte) (netip.AddrPort, bool) {
	const sizeInet4, sizeInet6 = 16, 28
	if len(b) < 2 {
		return netip.AddrPort{}, false
	}
	family := binary.NativeEndian.Uint16(b)
	switch {
	case family == syscall.AF_INET && len(b) >= sizeInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:])), true
	case family == syscall.AF_INET6 && len(b) >= sizeInet6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), binary.BigEndian.Uint16(b[2:])), true
	}
	return netip.AddrPort{}, false
}

// caller is what is known about the process and the socket of a call.
type caller struct {
	pid     int
	socket  sys.Socket
	cloexec bool
}

func inspect(call sys.BindCall) (caller, error) {
	pid, err := processOf(call.TID)
	if err != nil {
		return caller{}, err
	}
	pidfd, err := sys.PidfdOpen(pid)
	if err != nil {
		return caller{}, err
	}
	defer pidfd.Close()
	fd, err := sys.PidfdGetfd(pidfd.Num(), call.FD)
	if err != nil {
		return caller{}, err
	}
	defer fd.Close()
	c := caller{pid: pid}
	if c.socket, err = sys.Inspect(fd.Num()); err != nil {
		return caller{}, err
	}
	flags, err := procField(fmt.Sprintf("/proc/%d/fdinfo/%d", call.TID, call.FD), "flags:")
	if err != nil {
		return caller{}, err
	}
	bits, err := strconv.ParseUint(flags, 8, 64)
	if err != nil {
		return caller{}, err
	}
	c.cloexec = bits&syscall.O_CLOEXEC != 0
	return c, nil
}

// processOf returns the process that the thread tid belongs to.
func processOf(tid int) (int, error) {
	tgid, err := procField(fmt.Sprintf("/proc/%d/status", tid), "Tgid:")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(tgid)
}

func procField(path, key string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("%s has no %q", path, key)
}
