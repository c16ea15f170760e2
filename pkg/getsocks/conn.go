package getsocks

import (
	"context"
	"net"
	"time"
)

// past is a deadline that ends every wait at once.
var past = time.Unix(1, 0)

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
