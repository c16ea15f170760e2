package graceful

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/pkg/activation"
	"github.com/8265a91a/supervisor/pkg/fdstore"
)

// Options bound a drain. The zero value takes the defaults.
type Options struct {
	// Grace is how long a connection that has sent nothing yet is waited for; default 5 s.
	Grace time.Duration
	// Idle is how long a connection that has been answered may still send its next request; default 1 s.
	Idle time.Duration
	// Timeout bounds the drain, after which what is left is cut; default 25 s. It should be shorter than the supervisor's
	// drain.timeout or systemd's TimeoutStopSec=.
	Timeout time.Duration
}

// Worker is one generation of a server. Its methods may be called from several goroutines, but what it serves is
// registered before Run.
type Worker struct {
	options  Options
	warnings []error
	store    *fdstore.Store // nil where nobody listens
	signals  chan os.Signal
	draining chan struct{}

	mu       sync.Mutex
	passed   []activation.Descriptor
	sockets  []*socket
	services []service
	getsocks *getsocksService
	keeping  sync.Mutex
}

// notifyTimeout bounds how long a message waits for a manager that does not read.
const notifyTimeout = time.Second

// service is something that Run runs. serve returns after its socket was closed or its drain began; then drain ends
// what it has left within ctx.
type service interface {
	serve() error
	begin()
	drain(ctx context.Context) error
}

// New takes over what was passed to this process (LISTEN_FDS) and the signals that stop it. Call it first in main, and
// once. It is an error if something that was passed is missing: a server that went on without its sockets would bind
// others. What is only odd is in [Worker.Warnings].
func New(o Options) (*Worker, error) {
	setDefault(&o.Grace, 5*time.Second)
	setDefault(&o.Idle, time.Second)
	setDefault(&o.Timeout, 25*time.Second)
	w := &Worker{options: o, signals: make(chan os.Signal, 2), draining: make(chan struct{})}
	passed, problems := activation.Take()
	w.passed = passed.Descriptors
	var lost []error
	for _, p := range problems {
		if errors.Is(p, activation.ErrLost) {
			lost = append(lost, p)
		} else {
			w.warnings = append(w.warnings, p)
		}
	}
	if len(lost) > 0 {
		w.closePassed()
		return nil, fmt.Errorf("take what was passed: %w", errors.Join(lost...))
	}
	switch store, err := fdstore.Open(os.Getenv("NOTIFY_SOCKET")); {
	case err == nil:
		store.SetTimeout(notifyTimeout)
		w.store = store
		w.accountStored(passed.StoreMax)
	case !errors.Is(err, fdstore.ErrNoNotifySocket):
		w.warnings = append(w.warnings, err)
	}
	signal.Notify(w.signals, syscall.SIGTERM, syscall.SIGINT)
	return w, nil
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// Warnings returns what was odd in the environment that was passed, though nothing is missing; for the log. A LISTEN_PID
// of another process, from which the variables were inherited, is such a thing: nothing was passed to this one.
func (w *Worker) Warnings() []error { return w.warnings }

// Draining is closed when the drain begins: long-lived connections may say goodbye then.
func (w *Worker) Draining() <-chan struct{} { return w.draining }

// Run serves all that was registered, says READY=1, and drains after SIGTERM or SIGINT, when ctx ends, or when
// something cannot be served any more. It returns nil after a drain that lost nothing. A listening socket that was
// passed and that no [Worker.Listen] took is an error: what connects to it would wait for ever; [Worker.File] takes one
// that is not to be served. Everything else that nobody took is closed. Run may be called once.
func (w *Worker) Run(ctx context.Context) error {
	defer signal.Stop(w.signals)
	err := w.checkClaimed()
	w.closePassed()
	if err != nil {
		w.closeUnserved()
		return err
	}
	failed := make(chan error, len(w.services)+2)
	serving := w.serve(failed)
	stopGetsocks := w.startGetsocks(failed)
	stopWatchdog := w.startWatchdog()
	defer stopWatchdog()
	var telling sync.WaitGroup
	defer telling.Wait()
	telling.Go(func() { w.tell(failed) })
	err = w.await(ctx, failed)
	limit, cancel := w.limit()
	defer cancel()
	for _, s := range w.services {
		s.begin()
	}
	stopGetsocks()
	w.closeSockets(true)
	close(w.draining)
	err = errors.Join(err, w.drain(limit, serving))
	w.closeSockets(false)
	return err
}

// serve starts all services. Each channel is closed when its service has stopped accepting.
func (w *Worker) serve(failed chan<- error) (stopped []chan struct{}) {
	for _, s := range w.services {
		ended := make(chan struct{})
		stopped = append(stopped, ended)
		go func() {
			defer close(ended)
			if err := s.serve(); err != nil && !w.isDraining() {
				failed <- err
			}
		}()
	}
	return stopped
}

// tell says READY=1, as long as it takes, and STOPPING=1 when the drain has begun. A manager that does not read keeps
// nothing else from going on.
func (w *Worker) tell(failed chan<- error) {
	err := w.notify("READY=1")
	for errors.Is(err, fdstore.ErrBusy) && !w.isDraining() {
		err = w.notify("READY=1")
	}
	if err != nil {
		failed <- err
	}
	<-w.draining
	// Whoever asked for the drain knows; who does not listen any more need not.
	_ = w.notify("STOPPING=1")
}

// await returns when the worker has to stop, with an error only where it was not asked to.
func (w *Worker) await(ctx context.Context, failed <-chan error) error {
	select {
	case <-w.signals:
	case <-ctx.Done():
	case err := <-failed:
		return err
	}
	return nil
}

// repeated is how long SIGTERM says nothing new: a supervisor that died before it had noted that it sent the signal has
// its successor send it again.
const repeated = 5 * time.Second

// limit is the time of a drain: it ends with the timeout or the next signal that is not the same one repeated.
func (w *Worker) limit() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), w.options.Timeout)
	begun := time.Now()
	go func() {
		for {
			select {
			case sig := <-w.signals:
				if sig == syscall.SIGINT || time.Since(begun) > repeated {
					cancel()
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, cancel
}

// drain ends all services side by side: one that is slow costs no other its time.
func (w *Worker) drain(ctx context.Context, stopped []chan struct{}) error {
	errs := make([]error, len(w.services))
	var drains sync.WaitGroup
	for i, s := range w.services {
		drains.Go(func() {
			// No connection is between accept and its service once that has stopped accepting.
			select {
			case <-stopped[i]:
			case <-ctx.Done():
			}
			errs[i] = s.drain(ctx)
		})
	}
	drains.Wait()
	return errors.Join(errs...)
}

func (w *Worker) isDraining() bool {
	select {
	case <-w.draining:
		return true
	default:
		return false
	}
}

func (w *Worker) register(s service) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.services = append(w.services, s)
}
