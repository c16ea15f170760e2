// Package load is a bounded closed-loop client that counts what a server loses.
//
// It speaks HTTP/1.1 over connections of its own, so that it can tell how a
// request failed: refused, reset, cut, timed out, or answered wrongly. A class
// of clients is one way to use connections; several classes run side by side
// and are counted apart. Nothing is retried: what a request met is counted.
package load

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Class is a way in which a client uses its connections.
type Class string

// The classes.
const (
	// New opens a connection for each request.
	New Class = "new"
	// Late is New with Options.Late between connect and request, as a slow sender has.
	Late Class = "late"
	// Keep sends a request every Options.Interval over one connection for as long as the server keeps it.
	Keep Class = "keep"
	// Slow is New asking for Options.SlowPath, so that requests are in flight for long.
	Slow Class = "slow"
	// UDP sends one datagram from a new socket and waits for an answer.
	UDP Class = "udp"
)

// Target is what is asked.
type Target struct {
	// Network is tcp or unix, and udp for the class [UDP].
	Network string
	// Address is host:port with a literal host, or a path.
	Address string
	// TLS wraps the connection; the certificate is not checked.
	TLS bool
}

// Options bound and shape a run. Zero values take the defaults named.
type Options struct {
	Target Target
	// Clients is the number of closed-loop clients per class.
	Clients map[Class]int
	// Dial opens connections; default net.Dialer. It is how a run enters a network namespace.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Script is spoken in the place of HTTP. The class Keep repeats it on one connection; UDP uses its first step.
	Script []Step
	// Path of the request, default "/"; SlowPath for the class Slow, default "/slow?ms=1000".
	Path, SlowPath string
	// Timeout of one request from connect to the last byte; default 5s.
	Timeout time.Duration
	// Late is the wait of that class, default 150ms; Interval is the pause of Keep, default 10ms.
	Late, Interval time.Duration
	// Pause between two requests of the other classes; default none.
	Pause time.Duration
	// Requests ends the run after so many requests of all classes together; 0 means until Stop.
	Requests int64
	// Check judges an answer beyond status 200; nil accepts any. Its error makes the answer a wrong one.
	Check func(status int, body []byte) error
}

// Run is a load under way.
type Run struct {
	options Options
	cancel  context.CancelFunc
	done    chan struct{}
	sent    atomic.Int64
	mu      sync.Mutex
	result  Result
}

// Start begins a run, which goes on until Stop, the end of ctx, or Options.Requests.
func Start(ctx context.Context, o Options) *Run {
	o.setDefaults()
	ctx, cancel := context.WithCancel(ctx)
	r := &Run{options: o, cancel: cancel, done: make(chan struct{}), result: Result{Started: time.Now(), Classes: map[Class]*Count{}}}
	var clients sync.WaitGroup
	for class := range o.Clients {
		r.result.Classes[class] = newCount()
	}
	for class, n := range o.Clients {
		for range n {
			clients.Go(func() { r.client(ctx, class) })
		}
	}
	go func() {
		clients.Wait()
		cancel()
		close(r.done)
	}()
	return r
}

// Stop lets the requests under way finish and returns the result.
func (r *Run) Stop() Result {
	r.cancel()
	return r.Wait()
}

// Wait returns the result once the run has ended by itself.
func (r *Run) Wait() Result {
	<-r.done
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.result.Took == 0 {
		r.result.Took = time.Since(r.result.Started)
	}
	return r.result
}

// Snapshot returns a copy of what was counted so far.
func (r *Run) Snapshot() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.result.clone(time.Since(r.result.Started))
}

// Sent is the number of requests begun so far: what waits for progress polls it.
func (r *Run) Sent() int64 { return r.sent.Load() }

func (o *Options) setDefaults() {
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	setDefault(&o.Target.Network, "tcp")
	setDefault(&o.Path, "/")
	setDefault(&o.SlowPath, "/slow?ms=1000")
	setDefault(&o.Timeout, 5*time.Second)
	setDefault(&o.Late, 150*time.Millisecond)
	setDefault(&o.Interval, 10*time.Millisecond)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// take reports whether one more request may be sent.
func (r *Run) take(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	n := r.sent.Add(1)
	return r.options.Requests == 0 || n <= r.options.Requests
}

func (r *Run) record(class Class, o outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Classes[class].add(o)
}

func (r *Run) client(ctx context.Context, class Class) {
	switch class {
	case Keep:
		r.keep(ctx)
	case UDP:
		r.loop(ctx, class, r.options.Pause, r.datagram)
	default:
		r.loop(ctx, class, r.options.Pause, func() outcome { return r.single(class) })
	}
}

func (r *Run) loop(ctx context.Context, class Class, pause time.Duration, request func() outcome) {
	for r.take(ctx) {
		r.record(class, request())
		if !sleep(ctx, pause) {
			return
		}
	}
}

// sleep reports false when ctx ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func insecure() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
