package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

// SocketName is the file name of the control socket in a service's runtime directory.
const SocketName = "control.sock"

// ErrNotRunning says that no supervisor listens on the control socket.
var ErrNotRunning = errors.New("not running")

// ErrLost says that the connection ended before the answer was complete: nothing is known about the outcome.
var ErrLost = errors.New("the supervisor closed the connection before it gave a result")

// maxAnswer bounds the answer of a supervisor gone wrong: ten thousand sockets are some 5 MB.
const maxAnswer = 256 << 20

// Client is a connection to a daemon. It makes one request.
type Client struct {
	conn net.Conn
	in   *bufio.Reader
}

// Dial connects to the daemon whose runtime directory is dir (DIR/NAME). [ErrNotRunning] if there is none. The caller closes the client.
func Dial(ctx context.Context, dir string) (*Client, error) {
	path := filepath.Join(dir, SocketName)
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("%w: nobody listens on %s", ErrNotRunning, path)
	case err != nil:
		return nil, err
	}
	return &Client{conn: conn, in: bufio.NewReader(io.LimitReader(conn, maxAnswer))}, nil
}

// PID is the daemon's process id, as it was when it opened the control socket.
func (c *Client) PID() (int, error) {
	peer, err := sys.PeerCred(c.conn.(*net.UnixConn))
	return peer.PID, err
}

// Close ends the connection. A reload that is under way goes on.
func (c *Client) Close() error { return c.conn.Close() }

// Reload asks for a new generation of the worker and waits for the result, with drained also for the end of the old
// one. onEvent sees each step, note and warning as it comes. An error means that no result came; a reload that
// failed is a [Result].
func (c *Client) Reload(ctx context.Context, drained bool, onEvent func(Event)) (Result, error) {
	e, err := c.ask(ctx, Request{Op: OpReload, Drained: drained}, TypeResult, onEvent)
	if err != nil {
		return Result{}, err
	}
	return *e.Result, nil
}

// Reexec asks the supervisor to replace its binary in place, and returns when that is about to happen. onEvent sees a
// note if something must end first.
func (c *Client) Reexec(ctx context.Context, onEvent func(Event)) (Result, error) {
	e, err := c.ask(ctx, Request{Op: OpReexec}, TypeResult, onEvent)
	if err != nil {
		return Result{}, err
	}
	return *e.Result, nil
}

// Status asks for the state of the service.
func (c *Client) Status(ctx context.Context) (Status, error) {
	e, err := c.ask(ctx, Request{Op: OpStatus}, TypeStatus, nil)
	if err != nil {
		return Status{}, err
	}
	return *e.Status, nil
}

// FDs asks for the held sockets.
func (c *Client) FDs(ctx context.Context) (FDs, error) {
	e, err := c.ask(ctx, Request{Op: OpFDs}, TypeFDs, nil)
	if err != nil {
		return FDs{}, err
	}
	return *e.FDs, nil
}

// ask sends r and reads events until one of type want, whose content is then set.
func (c *Client) ask(ctx context.Context, r Request, want string, onEvent func(Event)) (Event, error) {
	stop := context.AfterFunc(ctx, func() { c.conn.SetDeadline(past) })
	defer stop()
	r.V = Version
	line, err := json.Marshal(r)
	if err != nil {
		return Event{}, err
	}
	// A supervisor that refuses the client may have closed already: what it said is still to be read.
	if _, err := c.conn.Write(append(line, '\n')); err != nil && !errors.Is(err, syscall.EPIPE) {
		return Event{}, c.reason(ctx, err)
	}
	for {
		e, err := c.next()
		if err != nil {
			return Event{}, c.reason(ctx, err)
		}
		switch {
		case e.Type == TypeError:
			return Event{}, fmt.Errorf("the supervisor refused: %s", e.Text)
		case e.Type == want:
			if e.Result == nil && want == TypeResult || e.Status == nil && want == TypeStatus || e.FDs == nil && want == TypeFDs {
				return Event{}, fmt.Errorf("the supervisor sent an empty %s", want)
			}
			return e, nil
		case onEvent != nil:
			onEvent(e)
		}
	}
}

func (c *Client) next() (Event, error) {
	line, err := c.in.ReadBytes('\n')
	if err != nil {
		return Event{}, err
	}
	var e Event
	if err := json.Unmarshal(line, &e); err != nil {
		return Event{}, fmt.Errorf("the supervisor's answer is not understood: %w", err)
	}
	if e.V != Version {
		return Event{}, fmt.Errorf("the supervisor speaks version %d of the control protocol, this program version %d", e.V, Version)
	}
	return e, nil
}

func (c *Client) reason(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return ErrLost
	}
	return err
}

// Running lists the services in the runtime directory root that have a control socket, whether or not somebody listens.
func Running(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if fi, err := os.Lstat(filepath.Join(root, e.Name(), SocketName)); err == nil && fi.Mode()&os.ModeSocket != 0 {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Timeout is how long a client may wait for a daemon's answer to anything but a reload.
const Timeout = 10 * time.Second
