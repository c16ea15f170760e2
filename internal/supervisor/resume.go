package supervisor

import (
	"slices"

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
// state had the pid.
func (d *Daemon) findMain(n int) (*sys.FD, error) {
	tree := &worker.Tree{Marker: d.Marker(n)}
	return tree.Eldest()
}

// dropUnnamed closes the sockets that were bound for, or by, a generation that did not come to serve: nobody accepts on
// them.
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
	unheld := d.unheld()
	for _, s := range d.held.Ordered(nil) {
		if unwanted(s) || unheld(s) {
			d.Note(handoff.Warning, "socket "+s.Name+" ("+s.Info.Address+") was bound in a handoff that did not succeed and is given up")
			handoff.RemoveBound(d.held, s)
		}
	}
}

// unheld selects the fetched sockets that neither the serving generation has open nor the starting one. A worker of which
// nothing is seen has perhaps just died: its sockets are kept.
func (d *Daemon) unheld() func(*sockets.Socket) bool {
	none := func(*sockets.Socket) bool { return false }
	var inodes []uint64
	fetched := false
	for _, s := range d.held.Ordered(nil) {
		inodes = append(inodes, s.Inodes()...)
		fetched = fetched || s.Origin == sockets.Fetched
	}
	if !fetched {
		return none
	}
	serving, err := openBy(d.serving, inodes)
	if err != nil || len(serving) == 0 {
		return none
	}
	var starting map[uint64]int
	if d.starting != nil {
		if starting, err = openBy(d.starting, inodes); err != nil {
			return none
		}
	}
	return func(s *sockets.Socket) bool {
		return s.Origin == sockets.Fetched && !slices.ContainsFunc(s.Inodes(), func(inode uint64) bool {
			return serving[inode] != 0 || starting[inode] != 0
		})
	}
}
