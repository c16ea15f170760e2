package intercept

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

// greeting goes with the notification descriptor: a message of a seqpacket socket must not be empty.
const greeting = "bind"

// Install filters the calling thread, which must be locked to its goroutine and is expected to call execve next, and
// sends the notification descriptor over the unix socket sock, which it borrows.
func Install(sock *sys.FD) error {
	notify, err := sys.FilterBind()
	if err != nil {
		return fmt.Errorf("intercept bind: %w", err)
	}
	defer notify.Close()
	if err := sys.SendRights(sock, []byte(greeting), []int{notify.Num()}); err != nil {
		return fmt.Errorf("intercept bind: hand over notifications: %w", err)
	}
	return nil
}

// Receive waits for what [Install] sends to the other end of sock, of which it takes ownership. The caller closes the
// notification descriptor. The other end must not be open in this process any more, or the death of the child goes
// unnoticed until ctx is done.
func Receive(ctx context.Context, sock *sys.FD) (*sys.FD, error) {
	conn, err := sys.UnixConn(sock)
	if err != nil {
		return nil, fmt.Errorf("receive bind notifications: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	m, err := sys.ReadMessage(conn, make([]byte, len(greeting)))
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("receive bind notifications: %w", err)
	}
	if len(m.FDs) != 1 {
		sys.CloseAll(m.FDs)
		return nil, errors.New("receive bind notifications: the worker ended, or could not be started, before it sent them")
	}
	return m.FDs[0], nil
}
