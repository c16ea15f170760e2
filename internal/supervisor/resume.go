package supervisor

import (
	"os"

	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// A supervisor that dies in the middle of a handoff leaves a generation that is starting. It may have accepted
// connections already: always where the order is signal-first, and where a socket is no steered pair. To kill it would
// cut them, so the next supervisor goes on with the handoff where readiness is waited for.

// takeStarting returns the generation that was starting when the last supervisor died, the first time it is called.
func (d *Daemon) takeStarting() *handoff.Generation {
	g := d.starting
	d.starting = nil
	return g
}

// findMain opens the main process of a generation by its marker: the supervisor died after the spawn and before the
// state had the pid. Processes are numbered upwards, so it has the lowest number of its tree.
func (d *Daemon) findMain(n int) (*sys.FD, error) {
	tree := &worker.Tree{Marker: d.Marker(n)}
	pids, err := tree.PIDs()
	if err != nil {
		return nil, err
	}
	if len(pids) == 0 {
		return nil, os.ErrProcessDone
	}
	return sys.PidfdOpen(pids[0])
}

// dropUnnamed closes the sockets that a handoff bound for a configuration that did not come into force: nobody
// accepts on them.
func (d *Daemon) dropUnnamed() {
	if d.serving == nil || d.serving.Config == nil {
		return
	}
	unnamed := handoff.Unconfigured(d.serving.Config)
	unwanted := unnamed
	if d.starting != nil {
		next := handoff.Unconfigured(d.starting.Config)
		unwanted = func(s *sockets.Socket) bool { return unnamed(s) && next(s) }
	}
	for _, s := range d.held.Ordered(nil) {
		if unwanted(s) {
			d.Note(handoff.Warning, "socket "+s.Name+" ("+s.Info.Address+") was bound by a handoff that did not end and is given up")
			handoff.RemoveBound(d.held, s)
		}
	}
}
