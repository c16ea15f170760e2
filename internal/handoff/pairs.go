package handoff

import (
	"errors"
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
	slot, next := h.Host.LastSlot(), h.slot()
	h.Host.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(nil) {
			switch {
			case s.Alternate != nil || !steers(h.Config, s.Origin, s.Info.Network):
			case slices.Contains(h.bound, s):
				h.join(held, s, next, true) // nobody but the newcomer will accept there
			case slot == 1:
				// What waits is in the first half, whatever the slot is called: pair up for the next reload.
				if h.Old == nil || lossless(h.Config) {
					continue
				}
				h.Host.Note(Info, fmt.Sprintf("socket %s (%s) is not steered in this reload, but in the next", s.Name, s.Info.Address))
			default:
				h.join(held, s, slot, false)
			}
		}
	})
}

// join makes s a pair that is steered to slot. What has arrived at one that is new waits in the half that was there
// first, which becomes that of slot: nobody else has it.
func (h *Handoff) join(held *sockets.Set, s *sockets.Socket, slot int, isNew bool) {
	s.Exchanged = isNew && slot == 1
	b, err := divert.Join(s.FD.Num())
	var info sys.Socket
	if err == nil {
		info, err = sys.Inspect(b.Num())
	}
	if err == nil {
		err = SteerTo(s, slot)
	}
	if err != nil {
		b.Close()
		s.Exchanged = false
		// Shards, connections over QUIC that are there already, another namespace: HAProxy's socket is fenced.
		if !lossless(h.Config) || !errors.Is(err, divert.ErrShared) && !errors.Is(err, divert.ErrUnsupported) {
			h.Host.Note(Warning, fmt.Sprintf("socket %s (%s) cannot be steered: %v", s.Name, s.Info.Address, err))
		}
		return
	}
	if s.Exchanged {
		held.PairBefore(s, b, info)
	} else {
		held.Pair(s, b)
	}
}

// steers tells whether a socket is to become a pair: where the worker gets it as a descriptor, or by its own bind(2). What a
// worker bound by itself its next generation takes for certain only if it asks for it, as HAProxy does, which needs no pair
// over TCP (see lossless).
func steers(cfg *config.Config, origin sockets.Origin, network string) bool {
	asks := slices.Contains(cfg.Worker.Conventions, config.ConventionGetsocks)
	switch {
	case network != "tcp" && network != "udp", origin == sockets.Pushed, origin == sockets.Fetched && !asks:
		return false
	case cfg.Drain.Divert == config.DivertAuto:
		return network == "udp" || !asks
	}
	return cfg.Drain.Divert == config.DivertSteer
}

// lossless tells whether traffic is only kept from UDP sockets: HAProxy loses no connection over TCP on SIGUSR1, but one
// over QUIC that has just begun: the client waits until it gives up (3.0 and 3.2). What it has accepted it goes on with
// over sockets of its own.
func lossless(cfg *config.Config) bool {
	return cfg.Drain.Divert == config.DivertAuto && cfg.Handoff.Fetch == config.FetchGetsocks
}
