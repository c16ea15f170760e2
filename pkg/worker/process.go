package worker

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

// Process is the main process of a generation, watched through its pidfd. Its methods may be called from several goroutines.
type Process struct {
	pid   int
	start uint64
	pidfd int
	file  *os.File // owns pidfd

	done    chan struct{}
	watched chan struct{} // closed when the watching goroutine has ended
	exit    sys.Exit
}

// Adopt takes ownership of pidfd, of a process that may be somebody else's child, and watches it. The error is
// os.ErrProcessDone if the process has ended and was reaped.
func Adopt(pidfd *FD) (*Process, error) {
	pid, err := sys.PidfdPID(pidfd.Num())
	if err != nil {
		pidfd.Close()
		return nil, fmt.Errorf("adopt worker: %w", err)
	}
	children.spawning.RLock()
	defer children.spawning.RUnlock()
	p, err := watch(pidfd, pid)
	if err != nil {
		return nil, fmt.Errorf("adopt worker %d: %w", pid, err)
	}
	return p, nil
}

// Ended stands for a process that has ended unwatched, as exit says, and was reaped, so that what it left behind can be
// drained. Done is closed, and there is no pidfd.
func Ended(pid int, startTime uint64, exit Exit) *Process {
	p := &Process{pid: pid, start: startTime, exit: exit, pidfd: -1, done: make(chan struct{}), watched: make(chan struct{})}
	close(p.done)
	close(p.watched)
	return p
}

// watch takes ownership of pidfd.
func watch(pidfd *sys.FD, pid int) (*Process, error) {
	n := pidfd.Num()
	st, err := readStat(pid, nil)
	if errors.Is(err, os.ErrNotExist) {
		// Of one that /proc hides (hidepid=, ProtectProc=) the pidfd still tells. Its start time stays unknown.
		if again, alive := sys.PidfdPID(n); alive == nil && again == pid {
			err = nil
		}
	}
	if err == nil {
		// Only if the pidfd still has its pid do the numbers just read belong to it.
		_, err = sys.PidfdPID(n)
	}
	if err == nil {
		err = sys.SetNonblock(n, true)
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		err = os.ErrProcessDone
	}
	if err != nil {
		pidfd.Close()
		return nil, err
	}
	p := &Process{pid: pid, start: st.start, pidfd: n, file: pidfd.File("pidfd"),
		done: make(chan struct{}), watched: make(chan struct{})}
	if err := p.file.SetReadDeadline(time.Time{}); err != nil {
		p.file.Close()
		return nil, fmt.Errorf("wait on pidfd: %w", err)
	}
	children.add(p)
	go p.wait()
	return p, nil
}

func (p *Process) wait() {
	defer close(p.watched)
	defer children.remove(p)
	if sys.WaitExit(p.file) != nil {
		return // released
	}
	p.exit = p.collect()
	close(p.done)
}

// collect fetches the status of the process, which has ended. It must not give up at once: a traced child can be
// reaped only after its tracer let go, and the status of a process that is not our child appears when its parent has reaped it.
func (p *Process) collect() sys.Exit {
	const patience, foreign = 5 * time.Second, 20 * time.Millisecond
	begin := time.Now()
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 20*time.Millisecond) {
		var exit sys.Exit
		var pidErr, err error
		closed := p.control(func(n int) {
			_, pidErr = sys.PidfdPID(n)
			exit, err = sys.Reap(n)
		})
		took := time.Since(begin)
		switch {
		case closed != nil, took > patience:
			return exit
		case err == nil && (exit.Known || pidErr != nil || took > foreign):
			return exit
		}
		time.Sleep(wait)
	}
}

func (p *Process) control(call func(n int)) error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { call(int(fd)) })
}

// PID returns the process id. After [Process.Done] it may belong to another process.
func (p *Process) PID() int { return p.pid }

// StartTime returns the time of the process's start in clock ticks since boot (field 22 of /proc/PID/stat): with the
// pid it identifies a process within one boot. It is 0 where /proc hides the process.
func (p *Process) StartTime() uint64 { return p.start }

// Pidfd lends the pidfd, for the FD store; it is valid until Release. It is -1 after [Ended].
func (p *Process) Pidfd() int { return p.pidfd }

// Done is closed when the process has ended and its status has been collected; never after Release.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit returns how the process ended. It is valid once Done is closed.
func (p *Process) Exit() sys.Exit { return p.exit }

// Signal sends sig to the process and to nobody else; os.ErrProcessDone when it is gone or released.
func (p *Process) Signal(sig syscall.Signal) error {
	var err error
	if p.control(func(n int) { err = sys.PidfdSignal(n, sig) }) != nil {
		return os.ErrProcessDone
	}
	return err
}

// Release stops watching and closes the pidfd. It leaves the process alone. Calling it again is harmless.
func (p *Process) Release() {
	p.file.Close()
	<-p.watched
}
