package handoff

import (
	"fmt"
	"sync"
	"time"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/activation"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// State is where a generation is in its life: starting, serving, draining, gone. At most one is serving.
type State string

// The states of a generation.
const (
	Starting State = "starting"
	Serving  State = "serving"
	Draining State = "draining"
	Gone     State = "gone"
)

// Leaving is a socket that nobody but an old generation has.
type Leaving struct {
	*sys.FD
	// Place is that in the order of its SO_REUSEPORT group, where it has one.
	Place int
	// Partner is the inode of the other half of the pair that it was, or 0.
	Partner uint64
}

// Generation is the n-th start of the worker. The daemon's loop owns its fields once the handoff has published it
// (Host.Begin); a handoff changes them only inside Host.Do.
type Generation struct {
	N     int
	Slot  int // 0 or 1: which socket of a steered pair it accepts on
	State State
	Since time.Time
	// Began is the same by CLOCK_MONOTONIC, which nobody sets and which holds over supervisors; 0 if it is not known.
	Began time.Duration
	// Config is what the generation was started with: it is also drained with it.
	Config *config.Config
	// LastPID is the main process's id when the generation was adopted.
	LastPID int
	// Dir is the generation's own runtime directory.
	Dir string
	// WordsFrom is the size of the file that stderr is, if it is one, when the generation began.
	WordsFrom int64

	Process *worker.Process
	Tree    *worker.Tree
	Notify  *worker.Notify
	// Intercept is the seccomp notification descriptor by which its bind(2) calls are answered; nil without the
	// convention "bind". The generation owns it.
	Intercept *sys.FD

	// Divert is how new connections are kept from it while it drains: steer, fence or none.
	Divert string
	// Phase is the step of its drain; Deadline is when escalation begins. Signalling says that the drain signal is about
	// to be sent, Signalled that it is out: a supervisor that dies in between leaves it to the next.
	Phase      string
	Signalling bool
	Signalled  bool
	Deadline   time.Time
	// NextStage is when the next step of the escalation comes, zero before it began.
	NextStage time.Time

	// Leaving are duplicates of the listeners that it alone has since the switch: its successor did not take them. They
	// are its own, and closed before it is told to stop.
	Leaving []Leaving

	// Says is "stopping" or "reloading" if it has said so by STOPPING=1 or RELOADING=1, and no READY=1 since.
	Says string
	// Status is its last STATUS=; Watchdog is when the next WATCHDOG=1 is due.
	Status   string
	Watchdog time.Time
	// Outcome says in words how it ended.
	Outcome string
	Ended   time.Time

	// ForeignMain says that it named another main process than the one that was started, which was logged.
	ForeignMain bool
	// Crashed says that its main process died while it served.
	Crashed bool
	// Unpushed are the names of what it asked to forget (FDSTOREREMOVE=1) while it is starting.
	Unpushed []string
	// Adopted says that an earlier supervisor process started it.
	Adopted bool

	sockets   map[string]config.SocketValue // as its placeholders show them, also when they are not held any more
	dropped   []sys.Socket                  // what it accepts on and is not held any more since its successor serves
	extend    func(time.Duration)           // moves the deadline of the ready step
	ready     chan struct{}
	readyOnce sync.Once
}

// NewGeneration returns generation n in state starting.
func NewGeneration(n, slot int, cfg *config.Config) *Generation {
	return &Generation{N: n, Slot: slot, State: Starting, Since: time.Now(), Began: sys.MonotonicNow(), Config: cfg, ready: make(chan struct{})}
}

// Age is how long ago the generation began.
func (g *Generation) Age() time.Duration {
	if g.Began == 0 {
		return time.Since(g.Since)
	}
	return sys.MonotonicNow() - g.Began
}

// Remember notes the sockets of an adopted generation for its placeholders: they may be gone before it is. It runs on
// the loop.
func (g *Generation) Remember(held *sockets.Set) {
	g.sockets = socketValues(held, g, activation.Layout{})
}

// SetReady notes READY=1.
func (g *Generation) SetReady() { g.readyOnce.Do(func() { close(g.ready) }) }

// Extend gives a starting worker until at least that much later (EXTEND_TIMEOUT_USEC). It runs on the loop.
func (g *Generation) Extend(by time.Duration) {
	if g.extend != nil {
		g.extend(by)
	}
}

// PID is the main process, or 0 before it was started.
func (g *Generation) PID() int {
	if g == nil {
		return 0
	}
	if g.Process == nil {
		return g.LastPID
	}
	return g.Process.PID()
}

// Seen returns the processes that were seen of it, none before it was started.
func (g *Generation) Seen() []int {
	if g == nil || g.Tree == nil {
		return nil
	}
	return g.Tree.Seen()
}

// Exited returns an error that says how the main process ended, or nil while it lives.
func (g *Generation) Exited() error {
	select {
	case <-g.Process.Done():
		return fmt.Errorf("the worker ended: %s", worker.ExitString(g.Process.Exit()))
	default:
		return nil
	}
}

// CloseLeaving lets go of the sockets that the generation alone has.
func (g *Generation) CloseLeaving() { closeLeaving(g.Leaving) }

func closeLeaving(list []Leaving) {
	for _, l := range list {
		l.Close()
	}
}
