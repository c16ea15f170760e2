package graceful

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/activation"
	"github.com/8265a91a/supervisor/pkg/fdstore"
)

// ErrNoManager says that nobody started this process who would keep something for the next generation.
var ErrNoManager = fdstore.ErrNoNotifySocket

// maxState is the largest blob that State reads, in bytes.
const maxState = 64 << 20

// Keep stores data under name for the next generation, in the place of what was kept under that name before. A
// generation that runs already does not see it.
func (w *Worker) Keep(name string, data []byte) error {
	if w.store == nil {
		return fmt.Errorf("keep %s: %w", name, ErrNoManager)
	}
	memfd, err := sys.SealedMemfd(name, data)
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	defer memfd.Close()
	return w.keep(name, memfd)
}

// KeepConn stores a duplicate of c's socket under name, in the place of what was kept under that name before.
func (w *Worker) KeepConn(name string, c syscall.Conn) error {
	if w.store == nil {
		return fmt.Errorf("keep %s: %w", name, ErrNoManager)
	}
	fd, err := sys.DupConn(c)
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	defer fd.Close()
	return w.keep(name, fd)
}

func (w *Worker) keep(name string, fd *sys.FD) error {
	if err := w.store.Remove(name); err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	if err := w.store.Add(name, fd.Num(), false); err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	return nil
}

// Forget removes what is kept under name.
func (w *Worker) Forget(name string) error {
	if w.store == nil {
		return nil
	}
	return w.store.Remove(name)
}

// State returns the blob that an earlier generation kept under name, or [fs.ErrNotExist]. It can be read until Run.
func (w *Worker) State(name string) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.passed {
		if d.Name == name && d.Kind == activation.KindMemfd {
			data, err := sys.ReadMemfd(d.FD.Num(), maxState)
			if err != nil {
				return nil, fmt.Errorf("read state %s: %w", name, err)
			}
			return data, nil
		}
	}
	return nil, fmt.Errorf("read state %s: %w", name, fs.ErrNotExist)
}

// File returns a descriptor that was passed under name, whatever it is, or nil. The caller closes it.
func (w *Worker) File(name string) *os.File {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, d := range w.passed {
		if d.Name == name {
			return w.remove(i).File(name)
		}
	}
	return nil
}

// Status shows text as the state of the service; it does nothing where nobody listens.
func (w *Worker) Status(text string) error { return w.notify("STATUS=" + text) }

func (w *Worker) notify(line string) error {
	if w.store == nil {
		return nil
	}
	return w.store.Notify(line)
}

// startWatchdog says WATCHDOG=1 twice per interval, if somebody asked for it (sd_watchdog_enabled(3)).
func (w *Worker) startWatchdog() (stop func()) {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	pid := os.Getenv("WATCHDOG_PID")
	if err != nil || usec <= 0 || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return func() {}
	}
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Duration(usec) * time.Microsecond / 2)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_ = w.notify("WATCHDOG=1")
			case <-done:
				return
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}
