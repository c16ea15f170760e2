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
	store    *fdstore.Store // nil where nobody listens
	signals  chan os.Signal
	draining chan struct{}

	mu       sync.Mutex
	passed   []activation.Descriptor
	sockets  []*socket
	services []service
	getsocks *getsocksService
}

// service is something that Run runs. serve returns after its socket was closed or its drain began; then drain ends
// what it has left within ctx.
type service interface {
	serve() error
	begin()
	drain(ctx context.Context) error
}

// New takes over what was passed to this process (LISTEN_FDS) and the signals that stop it. Call it first in main, and
// once. Something wrong in what was passed is an error: a server that went on without its sockets would bind others.
func New(o Options) (*Worker, error) {
	setDefault(&o.Grace, 5*time.Second)
	setDefault(&o.Idle, time.Second)
	setDefault(&o.Timeout, 25*time.Second)
	w := &Worker{options: o, signals: make(chan os.Signal, 2), draining: make(chan struct{})}
	passed, errs := activation.Take()
	w.passed = passed.Descriptors
	store, err := fdstore.Open(os.Getenv("NOTIFY_SOCKET"))
	switch {
	case err == nil:
		w.store = store
	case !errors.Is(err, fdstore.ErrNoNotifySocket):
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		w.closePassed()
		return nil, fmt.Errorf("take what was passed: %w", errors.Join(errs...))
	}
	signal.Notify(w.signals, syscall.SIGTERM, syscall.SIGINT)
	return w, nil
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// Draining is closed when the drain begins: long-lived connections may say goodbye then.
func (w *Worker) Draining() <-chan struct{} { return w.draining }

// Run serves all that was registered, says READY=1, and drains after SIGTERM or SIGINT, when ctx ends, or when
// something cannot be served any more. It returns nil after a drain that lost nothing. Sockets that were passed and
// that nobody asked for are closed: what connects to them would wait for ever. Run may be called once.
func (w *Worker) Run(ctx context.Context) error {
	defer signal.Stop(w.signals)
	w.closePassed()
	failed := make(chan error, len(w.services)+1)
	var serving sync.WaitGroup
	for _, s := range w.services {
		serving.Go(func() {
			if err := s.serve(); err != nil && !w.isDraining() {
				failed <- err
			}
		})
	}
	stopGetsocks := w.startGetsocks(failed)
	stopWatchdog := w.startWatchdog()
	defer stopWatchdog()
	err := w.notify("READY=1")
	if err == nil {
		err = w.await(ctx, failed)
	}
	for _, s := range w.services {
		s.begin()
	}
	close(w.draining)
	// Whoever asked for the drain knows; who does not listen any more need not.
	_ = w.notify("STOPPING=1")
	stopGetsocks()
	w.closeSockets(true)
	err = errors.Join(err, w.drain(&serving))
	w.closeSockets(false)
	return err
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

// drain ends all services side by side, within the timeout or until the next signal.
func (w *Worker) drain(serving *sync.WaitGroup) error {
	ctx, cancel := context.WithTimeout(context.Background(), w.options.Timeout)
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-w.signals:
			cancel()
		case <-ended:
		}
	}()
	// No connection is between accept and its service once all of them have stopped accepting.
	stopped := make(chan struct{})
	go func() {
		serving.Wait()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
	}
	errs := make([]error, len(w.services))
	var drains sync.WaitGroup
	for i, s := range w.services {
		drains.Go(func() { errs[i] = s.drain(ctx) })
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
