package getsocks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// past is a deadline that ends every wait at once.
var past = time.Unix(1, 0)

// dial connects to path. Unlike TCP, a unix socket refuses at once whom its queue has no room for (EAGAIN), and nothing
// announces that there is room again.
func dial(ctx context.Context, path string) (*net.UnixConn, error) {
	// What connects when ctx ends fails with that, and not with what was true until then.
	for full := false; ; {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil {
			return conn.(*net.UnixConn), nil
		}
		full = full || errors.Is(err, syscall.EAGAIN)
		over := ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded)
		switch {
		case full && over:
			return nil, fmt.Errorf("connect to %s: its queue is full: %w", path, explain(ctx, err))
		case !errors.Is(err, syscall.EAGAIN):
			return nil, err
		}
		pause(ctx, 10*time.Millisecond)
	}
}

// bind makes c's waits end when ctx does. The returned function undoes that and takes the deadline off c.
func bind(ctx context.Context, c *net.UnixConn) (release func()) {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		c.SetDeadline(past)
	})
	return func() {
		if !stop() {
			<-ended
		}
		c.SetDeadline(time.Time{})
	}
}

// explain returns the reason why ctx ended, if it did, in the place of the timeout that this caused.
func explain(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
