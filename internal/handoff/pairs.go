package handoff

import (
	"fmt"
	"slices"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/divert"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
)

// pairUp gives every socket that will be steered its second half, before the FD store is brought up to date. A pair
// stays for the life of the socket: indices in the SO_REUSEPORT group never move.
func (h *Handoff) pairUp() {
	if !steers(h.Config) {
		return
	}
	slot, next := h.Host.LastSlot(), h.slot()
	h.Host.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(nil) {
			if s.Alternate != nil || s.Origin == sockets.Fetched || s.Origin == sockets.Pushed || s.Info.Network != "tcp" && s.Info.Network != "udp" {
				continue
			}
			to, isNew := slot, slices.Contains(h.bound, s)
			if isNew {
				to = next // nobody but the newcomer will accept there
			} else if h.Old != nil && slot == 1 {
				// The old worker accepts on the first half, whatever its slot is called: pair up for the next reload.
				h.Host.Note(Info, fmt.Sprintf("socket %s (%s) is not steered in this reload, but in the next", s.Name, s.Info.Address))
				continue
			}
			// A new socket has been listening for a moment, and whoever came meanwhile waits in the half that was there
			// first: it is the newcomer's.
			s.Exchanged = isNew && next == 1
			b, err := divert.Join(s.FD.Num())
			var info sys.Socket
			if err == nil {
				info, err = sys.Inspect(b.Num())
			}
			if err == nil {
				err = SteerTo(s, to)
			}
			if err != nil {
				b.Close()
				s.Exchanged = false
				h.Host.Note(Warning, fmt.Sprintf("socket %s (%s) cannot be steered: %v", s.Name, s.Info.Address, err))
				continue
			}
			if s.Exchanged {
				held.PairBefore(s, b, info)
			} else {
				held.Pair(s, b)
			}
		}
	})
}

// steers tells whether sockets become pairs: where the worker gets them as descriptors, or by its own bind(2), and
// does not lose requests anyway.
func steers(cfg *config.Config) bool {
	switch cfg.Drain.Divert {
	case config.DivertSteer:
		return true
	case config.DivertAuto:
		return !slices.Contains(cfg.Worker.Conventions, config.ConventionGetsocks)
	}
	return false
}
