package handoff

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/divert"
	"github.com/8265a91a/supervisor/internal/probe"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
)

// reconcile asks the new worker what it listens on. What it bound itself is stored; what nobody listens on any more
// goes with the switch (see dropUnused). Then what its listen() broke is repaired.
func (h *Handoff) reconcile(ctx context.Context) (string, error) {
	if err := h.claims(ctx); err != nil {
		return "", err
	}
	if err := h.New.Exited(); err != nil { // the dead listen on nothing, and that is no reason to close anything
		return "", err
	}
	if len(h.added) > 0 {
		if _, err := h.store(ctx); err != nil {
			return "", err
		}
	}
	h.heal() // what the newcomer's listen() took, the backlog above all
	if h.Old != nil && h.New.Slot != h.Old.Slot {
		h.Host.Vacate(ctx, h.New.Slot)
	}
	return fmt.Sprintf("%d new", len(h.added)), nil
}

// forget undoes reconcile: what the newcomer bound itself dies with it.
func (h *Handoff) forget() {
	h.Host.Do(func(held *sockets.Set) {
		for _, s := range h.added {
			held.Remove(s)
		}
	})
	h.added = nil
}

// claims notes the sockets that the newcomer listens on, and merges those that it bound itself into the held set.
func (h *Handoff) claims(ctx context.Context) error {
	if h.New.Config.Handoff.Fetch == config.FetchNone {
		h.claimed = h.claimedByProbe()
		return nil
	}
	found, admin, err := collect(ctx, h.Host, h.New, h.Old)
	if err != nil {
		return fmt.Errorf("ask generation %d what it listens on: %w", h.New.N, err)
	}
	empty := len(found) == 0 && admin == nil // no true answer: what was asked has a socket
	if h.New.Config.Handoff.Fetch == config.FetchPidfd && h.listens != nil {
		// To have a socket open is no claim: it may have taken another one since it was ready, or stopped listening.
		if err := h.listens.still(); err != nil {
			closeSockets(found)
			return err
		}
	}
	h.claimed = map[uint64]bool{}
	h.Host.Do(func(held *sockets.Set) {
		for _, s := range found {
			s, isNew := held.Add(s) // the second socket of a pair stands for the first
			if isNew {
				h.added = append(h.added, s)
				if steers(h.New.Config, s.Origin, s.Info.Network) {
					h.join(held, s, h.New.Slot, true)
				}
			}
			h.claimed[s.Cookie] = true
		}
	})
	h.claimUnlisted()
	if n := h.countServed(); n > 0 && (empty || len(h.claimed) == 0) {
		return fmt.Errorf("generation %d says that it listens on nothing: nobody would serve the %d sockets that are held", h.New.N, n)
	}
	h.noteReplaced()
	return nil
}

// claimUnlisted claims what the newcomer's answer leaves out, but the kernel shows it waiting on: HAProxy does not list what
// it was given as "fd@N", and no answer may close a socket that is in use.
func (h *Handoff) claimUnlisted() {
	pids, err := h.New.Tree.PIDs()
	unlisted := h.byInode(func(s *sockets.Socket) bool { return !h.claimed[s.Cookie] })
	if err != nil || len(unlisted) == 0 {
		return
	}
	waits, _ := probe.Listening(pids, slices.Collect(maps.Keys(unlisted))) // what was found holds beside an error, too
	for inode := range waits {
		h.claimed[unlisted[inode]] = true
	}
}

// byInode maps the inodes of the newcomer's halves of the sockets that suit to their cookies.
func (h *Handoff) byInode(suits func(*sockets.Socket) bool) map[uint64]uint64 {
	cookies := map[uint64]uint64{}
	h.Host.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(nil) {
			if inode, err := s.Inode(h.New.Slot); err == nil && suits(s) {
				cookies[inode] = s.Cookie
			}
		}
	})
	return cookies
}

// noteReplaced tells of sockets that the newcomer did not take, but bound anew at the same address: the old one is left to
// its worker (see [Drain]). HAProxy does that when an option differs, and, without "v6only", for
// every specific IPv6 address, on which the kernel sets that option by itself.
func (h *Handoff) noteReplaced() {
	unconfigured := Unconfigured(h.New.Config)
	h.Host.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(nil) {
			if h.claimed[s.Cookie] || unconfigured(s) || !slices.ContainsFunc(h.added, func(f *sockets.Socket) bool {
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
	byInode := h.byInode(func(*sockets.Socket) bool { return true })
	holders, err := probe.Held(pids, slices.Collect(maps.Keys(byInode)))
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
func (h *Handoff) unclaimed(s *sockets.Socket) bool {
	was := s.Unclaimed
	s.Unclaimed = !h.claimed[s.Cookie]
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
// address. Under another name it is the same one (see rename).
func Unconfigured(cfg *config.Config) func(*sockets.Socket) bool {
	misnamed := misnamed(cfg)
	return func(s *sockets.Socket) bool {
		return misnamed(s) && !slices.ContainsFunc(cfg.Sockets, func(t config.Socket) bool { return SameAddress(t.Listen, s.Info) })
	}
}

// misnamed selects the sockets that were bound for a [[socket]] table that cfg does not have under that name, or has with
// another address.
func misnamed(cfg *config.Config) func(*sockets.Socket) bool {
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

// dropUnused removes the sockets that the new configuration does not have, or the newcomer, which serves now, does not
// listen on: a client would wait in them for nobody. It runs on the loop, and returns their number.
func (h *Handoff) dropUnused(held *sockets.Set) (n int) {
	unconfigured := Unconfigured(h.New.Config) // first: that nobody claims them is what was asked for
	for _, s := range held.Ordered(nil) {
		if !unconfigured(s) && (h.claimed == nil || !h.unclaimed(s)) {
			continue
		}
		replaced := h.part(s)
		RemoveBound(held, s)
		if replaced != nil { // in whose place the other one is, now that its partner is closed
			h.noteAccepts(s, divert.Hide(replaced.Num(), replaced.Place, replaced.Partner))
		}
		n++
	}
	return n
}

// part has the old generation drain what it accepted from s, which goes: nothing of that may wait in it, or be in hand, when
// it is told to stop. Who connects to an address that the configuration does not have any more is refused from now on, unless
// New has bound it by itself: then the old generation's socket is returned, to be hidden when s is removed. A listener that a
// worker bound itself may be needed by its own processes, and is left to it until then.
func (h *Handoff) part(s *sockets.Socket) (replaced *Leaving) {
	if h.Old == nil || h.Old.State != Draining {
		return nil
	}
	h.Old.dropped = append(h.Old.dropped, s.Info)
	bound := s.Origin == sockets.Bound
	if !bound && (h.claimed == nil || h.claimed[s.Cookie]) { // New may have it open
		return nil
	}
	// By pidfd_getfd(2) come also the UDP sockets from which a worker asks others, and waits for their answers.
	quic := s.Info.Network == "udp" && s.Origin == sockets.Fetched && h.Old.Config.Handoff.Fetch == config.FetchGetsocks
	if s.Info.Network != "tcp" && !quic {
		return nil
	}
	dup, err := s.Slot(h.Old.Slot).Dup()
	if err == nil {
		left := Leaving{FD: dup, Place: s.Place(h.Old.Slot)}
		if s.Alternate != nil {
			left.Partner, _ = s.Inode(1 - h.Old.Slot)
		}
		h.Old.Leaving = append(h.Old.Leaving, left)
		if second, _ := s.Inode(1); bound && divert.Replaced(s.Info, second) {
			return &left
		}
	}
	if bound {
		err := sys.HideListener(s.FD.Num())
		if s.Alternate != nil {
			err = errors.Join(err, sys.HideListener(s.Alternate.Num()))
		}
		h.noteAccepts(s, err)
	}
	return nil
}

// noteAccepts tells why the old generation cannot be kept from what arrives at s, which goes.
func (h *Handoff) noteAccepts(s *sockets.Socket, err error) {
	if err != nil {
		h.Host.Note(Warning, fmt.Sprintf("generation %d accepts connections of socket %s (%s), which goes, until its end: %v", h.Old.N, s.Name, s.Info.Address, err))
	}
}
