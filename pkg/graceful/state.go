package graceful

import (
	"errors"
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

const (
	// maxState is the largest blob that is kept and read, in bytes.
	maxState = 64 << 20
	// nextSuffix is that of the name of a new blob while the old one is still stored.
	nextSuffix = ".next"
)

// Keep stores data, at most 64 MiB, under name for the next generation, in the place of what was kept under that name
// before; one of the two is stored at any moment. A generation that runs already does not see it. systemd before 254
// does not tell whether the unit has a store (FileDescriptorStoreMax=): then nothing may be kept without an error.
func (w *Worker) Keep(name string, data []byte) error {
	if w.store == nil {
		return fmt.Errorf("keep %s: %w", name, ErrNoManager)
	}
	if err := fdstore.ValidName(name + nextSuffix); err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	if len(data) > maxState {
		return fmt.Errorf("keep %s: %d bytes are more than the %d that State reads", name, len(data), maxState)
	}
	memfd, err := sys.SealedMemfd("state", data)
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	defer memfd.Close()
	w.keeping.Lock()
	defer w.keeping.Unlock()
	if err := w.keepNext(name, memfd); err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	if err := w.keep(name, memfd); err != nil {
		return err
	}
	return w.dropNext(name)
}

// keepNext stores memfd beside what is kept under name, if anything is and the store has room.
func (w *Worker) keepNext(name string, memfd *sys.FD) error {
	next := name + nextSuffix
	if w.store.Count(name) > 0 {
		if err := w.dropNext(name); err != nil {
			return err
		}
	} else if w.store.Count(next) == 0 {
		return nil
	}
	again, err := sys.Reopen(memfd.Num())
	if err != nil {
		return err
	}
	defer again.Close()
	if err := w.store.Add(next, again.Num(), false); !errors.Is(err, fdstore.ErrFull) {
		return err
	}
	return nil
}

func (w *Worker) dropNext(name string) error {
	if w.store.Count(name+nextSuffix) == 0 {
		return nil
	}
	return w.store.Remove(name + nextSuffix)
}

// KeepConn stores a duplicate of c's socket under name, in the place of what was kept under that name before, which is
// gone also if that fails.
func (w *Worker) KeepConn(name string, c syscall.Conn) error {
	if w.store == nil {
		return fmt.Errorf("keep %s: %w", name, ErrNoManager)
	}
	fd, err := sys.DupConn(c)
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	defer fd.Close()
	w.keeping.Lock()
	defer w.keeping.Unlock()
	return w.keep(name, fd)
}

// accountStored tells the store what is in it, as far as that can be told: a unit passes listeners, and sockets
// for datagrams, which take no room there.
func (w *Worker) accountStored(limit int) {
	w.store.SetMax(limit)
	for _, d := range w.passed {
		info, err := sys.Inspect(d.FD.Num())
		if d.Kind == activation.KindMemfd || err == nil && info.Stream() && !info.Listening {
			w.store.Adopt(d.Name, d.FD.Num())
		}
	}
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
	w.keeping.Lock()
	defer w.keeping.Unlock()
	if err := w.store.Remove(name); err != nil {
		return err
	}
	return w.dropNext(name)
}

// State returns the blob that an earlier generation kept under name, or [fs.ErrNotExist]. It can be read until Run.
func (w *Worker) State(name string) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// Under the second name is what a generation kept that was killed in the middle.
	for _, stored := range []string{name, name + nextSuffix} {
		for _, d := range w.passed {
			if d.Name == stored && d.Kind == activation.KindMemfd {
				data, err := sys.ReadMemfd(d.FD.Num(), maxState)
				if err != nil {
					return nil, fmt.Errorf("read state %s: %w", name, err)
				}
				return data, nil
			}
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

// Status shows text as the state of the service; it does nothing where nobody listens. It never waits: while the manager
// is too busy to read, the error is [fdstore.ErrBusy].
func (w *Worker) Status(text string) error {
	if w.store == nil {
		return nil
	}
	return w.store.TryNotify("STATUS=" + text)
}

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
