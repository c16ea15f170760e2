package graceful

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/activation"
	"github.com/8265a91a/supervisor/pkg/getsocks"
)

// socket is one that the worker listens on: the net package's, and a descriptor that is only passed on.
type socket struct {
	user   io.Closer
	fd     *sys.FD
	stream bool
}

// Listen returns the listener that was passed under name (LISTEN_FDNAMES; the name of a .socket unit counts with and
// without its suffix), else one that was passed for the same address, else it binds network and address as
// [net.Listen] does. Each call takes another one, so that a unit with two ListenStream= needs two calls; one that no call
// takes is an error of [Worker.Run]. A drain closes the listener; do not close it yourself.
func (w *Worker) Listen(name, network, address string) (net.Listener, error) {
	fd, err := w.claim(name, network, address, true)
	if err != nil {
		return nil, fmt.Errorf("listen as %s: %w", name, err)
	}
	var l net.Listener
	if fd != nil {
		l, err = withFile(fd, net.FileListener)
	} else {
		l, err = bind(network, address)
		if left := w.unclaimed(); errors.Is(err, syscall.EADDRINUSE) && left != "" {
			err = fmt.Errorf("%w; what was passed has other names or addresses: %s", err, left)
		}
	}
	if err != nil {
		fd.Close()
		return nil, fmt.Errorf("listen as %s: %w", name, err)
	}
	return l, w.hold(l, fd, true)
}

// ListenPacket is [Worker.Listen] for datagrams. What it returns is a *net.UDPConn or *net.UnixConn.
func (w *Worker) ListenPacket(name, network, address string) (net.PacketConn, error) {
	fd, err := w.claim(name, network, address, false)
	if err != nil {
		return nil, fmt.Errorf("listen as %s: %w", name, err)
	}
	var c net.PacketConn
	if fd != nil {
		c, err = withFile(fd, net.FilePacketConn)
	} else {
		c, err = bindPacket(network, address)
	}
	if err != nil {
		fd.Close()
		return nil, fmt.Errorf("listen as %s: %w", name, err)
	}
	return c, w.hold(c, fd, false)
}

// bind does not remove the path of a Unix socket when it is closed: the next generation may listen on the same socket.
func bind(network, address string) (net.Listener, error) {
	if err := removeStale(network, address); err != nil {
		return nil, err
	}
	l, err := net.Listen(network, address)
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return l, err
}

func bindPacket(network, address string) (net.PacketConn, error) {
	if err := removeStale(network, address); err != nil {
		return nil, err
	}
	return net.ListenPacket(network, address)
}

// removeStale removes the path of a Unix socket that nobody has open any more.
func removeStale(network, address string) error {
	if !strings.HasPrefix(network, "unix") || address == "" || address[0] == '@' {
		return nil
	}
	return sys.RemoveStaleSocket(address)
}

// withFile lends the net package a duplicate of fd, of which it makes one more for itself.
func withFile[T any](fd *sys.FD, convert func(f *os.File) (T, error)) (T, error) {
	dup, err := fd.Dup()
	if err != nil {
		var none T
		return none, err
	}
	f := dup.File("passed socket")
	defer f.Close()
	return convert(f)
}

// hold takes ownership of both; fd is nil for a socket bound here.
func (w *Worker) hold(user io.Closer, fd *sys.FD, stream bool) error {
	if fd == nil {
		c, ok := user.(syscall.Conn)
		if !ok {
			user.Close()
			return fmt.Errorf("a %T has no descriptor", user)
		}
		var err error
		if fd, err = sys.DupConn(c); err != nil {
			user.Close()
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sockets = append(w.sockets, &socket{user: user, fd: fd, stream: stream})
	return nil
}

// claim takes the descriptor out of what was passed; nil if there is none to be taken. The caller closes it.
func (w *Worker) claim(name, network, address string, stream bool) (*sys.FD, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var byAddress, otherKind int = -1, -1
	for i, d := range w.passed {
		if d.Kind != activation.KindSocket {
			continue
		}
		info, err := sys.Inspect(d.FD.Num())
		if err != nil {
			return nil, err
		}
		fits := info.Stream() == stream && (info.Listening || !stream)
		switch {
		case d.Name == name || d.Name == name+".socket":
			if fits {
				return w.remove(i), nil
			}
			otherKind = i
		case fits && byAddress < 0 && sameAddress(info, network, address):
			byAddress = i
		}
	}
	if otherKind >= 0 {
		return nil, fmt.Errorf("what was passed as %s is not a %s", w.passed[otherKind].Name, kindName(stream))
	}
	if byAddress >= 0 {
		return w.remove(byAddress), nil
	}
	return nil, nil
}

// unclaimed lists the listeners that were passed and that nobody took. The supervisor looks itself at what a worker
// listens on, and closes what a new version of it has given up.
func (w *Worker) unclaimed() string {
	if os.Getenv("SUPERVISOR_GENERATION") != "" {
		return ""
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for _, d := range w.passed {
		if info, err := sys.Inspect(d.FD.Num()); err == nil && info.Listening {
			list = append(list, fmt.Sprintf("%q (%s)", d.Name, info.Address))
		}
	}
	return strings.Join(list, ", ")
}

func (w *Worker) checkClaimed() error {
	if left := w.unclaimed(); left != "" {
		return fmt.Errorf("sockets were passed that the program does not listen on, so that their clients would wait for ever: %s", left)
	}
	return nil
}

func kindName(stream bool) string {
	if stream {
		return "listening socket"
	}
	return "datagram socket"
}

func (w *Worker) remove(i int) *sys.FD {
	fd := w.passed[i].FD
	w.passed = append(w.passed[:i:i], w.passed[i+1:]...)
	return fd
}

func sameAddress(info sys.Socket, network, address string) bool {
	if strings.HasPrefix(network, "unix") {
		return strings.HasPrefix(info.Network, "unix") && info.Address == address
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || strconv.Itoa(info.Port) != port || info.Port == 0 {
		return false
	}
	return host == info.Host || host == "" && (info.Host == "::" || info.Host == "0.0.0.0")
}

// closeSockets closes the listeners, or what is left.
func (w *Worker) closeSockets(streams bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.sockets {
		if s.stream || !streams {
			s.user.Close()
		}
		s.fd.Close()
	}
}

// closeUnserved closes everything before anything was served.
func (w *Worker) closeUnserved() {
	if w.getsocks != nil {
		w.getsocks.server.Close()
	}
	w.closeSockets(false)
}

func (w *Worker) closePassed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.passed {
		d.FD.Close()
	}
	w.passed = nil
}

// getsocksService is a server of the worker's listening sockets.
type getsocksService struct{ server *getsocks.Server }

// Getsocks serves the worker's sockets by HAProxy's _getsocks protocol at path (mode 0600) while Run runs. A next
// generation takes over the path by serving at the same one.
func (w *Worker) Getsocks(path string) error {
	server, err := getsocks.Listen(path)
	if err != nil {
		return fmt.Errorf("serve sockets: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.getsocks = &getsocksService{server: server}
	return nil
}

func (w *Worker) startGetsocks(failed chan<- error) (stop func()) {
	if w.getsocks == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := w.getsocks.server.Serve(ctx, w.lendSockets); err != nil {
			failed <- err
		}
	}()
	return func() {
		cancel()
		<-ended
		w.getsocks.server.Close()
	}
}

// lendSockets duplicates, so that a drain can close the sockets while somebody reads them slowly.
func (w *Worker) lendSockets() (list []getsocks.Socket, release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.sockets {
		if dup, err := s.fd.Dup(); err == nil {
			list = append(list, getsocks.Socket{FD: dup})
		}
	}
	return list, func() { getsocks.CloseAll(list) }
}

// closed tells the error of a socket that was closed on purpose.
func closed(err error) bool { return errors.Is(err, net.ErrClosed) }
