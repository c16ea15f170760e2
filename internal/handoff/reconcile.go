package handoff

import (
	"context"
	"fmt"
	"slices"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/probe"
	"github.com/8265a91a/supervisor/internal/sockets"
)

// reconcile asks the new worker what it listens on. What it bound itself is stored; what nobody listens on any more
// leaves memory and FD store before traffic can be lost in it. Then what its listen() broke is repaired.
func (h *Handoff) reconcile(ctx context.Context) (string, error) {
	claimed, added, err := h.claims(ctx)
	if err == nil {
		err = h.New.Exited() // the dead listen on nothing, and that is no reason to close anything
	}
	if err != nil {
		return "", err
	}
	if added > 0 {
		// Stored first, dropped later: if the store is full the old worker still has everything.
		if _, err := h.store(ctx); err != nil {
			h.drop(func(s *sockets.Socket) bool { return s.Origin == sockets.Fetched && !h.before[s.Cookie] })
			return "", err
		}
	}
	dropped := h.drop(Unconfigured(h.New.Config)) // first: that nobody claims them is what was asked for
	if claimed != nil {
		dropped += h.drop(func(s *sockets.Socket) bool { return h.unclaimed(s, claimed) })
	}
	if dropped > 0 {
		if _, err := h.store(ctx); err != nil {
			h.Host.Note(Warning, "cannot remove unclaimed sockets from the FD store yet: "+err.Error())
		}
	}
	h.heal() // what the newcomer's listen() took, the backlog above all
	if h.Old != nil && h.New.Slot != h.Old.Slot {
		h.Host.Vacate(ctx, h.New.Slot)
	}
	return fmt.Sprintf("%d new, %d dropped", added, dropped), nil
}

// claims returns the identities of the sockets that the newcomer listens on, or nil where that cannot be told, and
// merges those that it bound itself into the held set.
func (h *Handoff) claims(ctx context.Context) (claimed map[uint64]bool, added int, err error) {
	if h.New.Config.Handoff.Fetch == config.FetchNone {
		return h.claimedByProbe(), 0, nil
	}
	found, _, err := collect(ctx, h.Host, h.New)
	if err != nil {
		return nil, 0, fmt.Errorf("ask generation %d what it listens on: %w", h.New.N, err)
	}
	claimed = map[uint64]bool{}
	var fresh []*sockets.Socket
	h.Host.Do(func(held *sockets.Set) {
		h.before = map[uint64]bool{}
		for _, s := range held.Ordered(nil) {
			h.before[s.Cookie] = true
		}
		for _, s := range found {
			s, isNew := held.Add(s) // the second socket of a pair stands for the first
			claimed[s.Cookie] = true
			if isNew {
				fresh = append(fresh, s)
			}
		}
	})
	h.noteReplaced(fresh, claimed)
	return claimed, len(fresh), nil
}

// noteReplaced tells of sockets that the newcomer did not take, but bound anew at the same address: what waits in the old
// one is lost. HAProxy does that when an option differs, and, without "v6only", for every specific IPv6 address, on
// which the kernel sets that option by itself.
func (h *Handoff) noteReplaced(fresh []*sockets.Socket, claimed map[uint64]bool) {
	unconfigured := Unconfigured(h.New.Config)
	h.Host.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(nil) {
			if claimed[s.Cookie] || unconfigured(s) || !slices.ContainsFunc(fresh, func(f *sockets.Socket) bool {
				return f.Info.Network == s.Info.Network && f.Info.Address == s.Info.Address
			}) {
				continue
			}
			h.Host.Note(Warning, fmt.Sprintf("generation %d did not take socket %s (%s), but bound another one there: its options "+
				"differ from the held one's (a specific IPv6 address needs \"v6only\" on HAProxy's bind line)", h.New.N, s.Name, s.Info.Address))
		}
	})
}

// claimedByProbe looks at what the newcomer waits on; nil if the kernel does not tell.
func (h *Handoff) claimedByProbe() map[uint64]bool {
	pids, err := h.New.Tree.PIDs()
	if err != nil {
		return nil
	}
	byInode := map[uint64]uint64{}
	var inodes []uint64
	h.Host.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(nil) {
			if inode, err := s.Inode(h.New.Slot); err == nil {
				byInode[inode] = s.Cookie
				inodes = append(inodes, inode)
			}
		}
	})
	holders, err := probe.Held(pids, inodes)
	if err != nil {
		return nil
	}
	claimed := map[uint64]bool{}
	for inode := range holders {
		claimed[byInode[inode]] = true
	}
	return claimed
}

// unclaimed tells whether s must go, and notes what cannot go: systemd itself holds a unit's socket, and without a
// fetch an open descriptor is the only sign of a claim, which is too little to close a configured socket.
func (h *Handoff) unclaimed(s *sockets.Socket, claimed map[uint64]bool) bool {
	was := s.Unclaimed
	s.Unclaimed = !claimed[s.Cookie]
	if !s.Unclaimed || s.Origin == sockets.Pushed {
		return false
	}
	if s.Origin == sockets.Fetched || s.Origin == sockets.Bound && h.New.Config.Handoff.Fetch != config.FetchNone {
		if s.Origin == sockets.Bound {
			h.Host.Note(Warning, fmt.Sprintf("socket %s (%s) of the configuration is closed: generation %d does not listen on it", s.Name, s.Info.Address, h.New.N))
		}
		return true
	}
	if !was {
		h.Host.Note(Warning, fmt.Sprintf("generation %d does not use socket %s (%s), which %s keeps open: clients that connect to it wait for nobody",
			h.New.N, s.Name, s.Info.Address, map[sockets.Origin]string{sockets.Unit: "its .socket unit", sockets.Bound: "the configuration"}[s.Origin]))
	}
	return false
}

// Unconfigured selects the sockets that were bound for a [[socket]] table that cfg does not have, or has with another
// address.
func Unconfigured(cfg *config.Config) func(*sockets.Socket) bool {
	tables := make(map[string]*config.Socket, len(cfg.Sockets))
	for i := range cfg.Sockets {
		tables[cfg.Sockets[i].Name] = &cfg.Sockets[i]
	}
	return func(s *sockets.Socket) bool {
		if s.Origin != sockets.Bound {
			return false
		}
		want := tables[s.FDName]
		return want == nil || want.Listen != (config.Address{}) && !SameAddress(want.Listen, s.Info)
	}
}

// drop removes the held sockets that which selects, and returns their number.
func (h *Handoff) drop(which func(*sockets.Socket) bool) (n int) {
	h.Host.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(nil) {
			if !which(s) {
				continue
			}
			if s.Origin == sockets.Bound {
				RemoveBound(held, s)
			} else {
				held.Remove(s)
			}
			n++
		}
	})
	return n
}
