package handoff

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/divert"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
)

func optionsOf(want *config.Socket) sockets.Options {
	o := sockets.Options{Backlog: want.Backlog, DeferAccept: int(want.DeferAccept.Seconds()), User: want.User, Group: want.Group}
	if want.Mode != nil {
		o.Mode = fmt.Sprintf("%04o", *want.Mode)
	}
	return o
}

// rebind lists the options of a table that the held socket was bound without, or with other values.
func rebind(s *sockets.Socket, want *config.Socket) (keys []string) {
	if want.FreeBind != s.Info.FreeBind {
		keys = append(keys, "free_bind")
	}
	if want.V6Only != nil && *want.V6Only != s.Info.V6Only {
		keys = append(keys, "v6only")
	}
	return keys
}

// adjust gives a held socket the options that its table has now. What was before comes back with the undo. It runs on the
// loop.
func (h *Handoff) adjust(s *sockets.Socket, want *config.Socket) error {
	nonblock, was, next := s.Nonblock, s.Options, optionsOf(want)
	h.restore = append(h.restore, func() { s.Nonblock, s.Options = nonblock, was })
	s.Nonblock, s.Options = want.Nonblock, next
	warn := func(key, why string) {
		h.Host.Note(Warning, fmt.Sprintf("socket %s (%s): what the configuration says of %s has no effect: %s", s.Name, s.Info.Address, key, why))
	}
	seen := slices.Contains(h.adjusted, s) // by a check with sockets
	h.adjusted = append(h.adjusted, s)
	if s.Origin == sockets.Bound && want.Listen != (config.Address{}) && h.Kind != Restart && h.Kind != Replace && !seen {
		if keys := rebind(s, want); len(keys) > 0 {
			warn(strings.Join(keys, " and "), "only a new socket can have another, which a reload without this table and one with it make")
		}
	}
	const unset = "what is not configured any more stays as it is"
	if next.Backlog != was.Backlog {
		switch {
		case !s.Info.Stream():
			warn("backlog", "a datagram socket has none")
		case next.Backlog == 0 && s.Origin != sockets.Bound:
			warn("backlog", unset)
		default:
			if err := h.setBacklog(s, next.Backlog); err != nil {
				return fmt.Errorf("set the backlog of socket %s (%s): %w", s.Name, s.Info.Address, err)
			}
		}
	}
	if next.DeferAccept != was.DeferAccept {
		switch {
		case s.Info.Network != "tcp":
			warn("defer_accept", "only a TCP socket has it")
		case next.DeferAccept == 0 && s.Origin != sockets.Bound:
			warn("defer_accept", unset)
		default:
			if err := h.setDeferAccept(s, next.DeferAccept); err != nil {
				return fmt.Errorf("set defer_accept of socket %s (%s): %w", s.Name, s.Info.Address, err)
			}
		}
	}
	if next.Mode == was.Mode && next.User == was.User && next.Group == was.Group || s.Origin != sockets.Bound {
		return nil
	}
	if s.File == "" || s.File != fileID(s.Info.Address) {
		warn("mode or owner", "the file there is another's")
		return nil
	}
	if next.Mode == "" && was.Mode != "" || next.User == "" && was.User != "" || next.Group == "" && was.Group != "" {
		warn("mode or owner", unset)
	}
	if err := h.setOwner(s, want); err != nil {
		return fmt.Errorf("set mode and owner of socket %s (%s): %w", s.Name, s.Info.Address, err)
	}
	return nil
}

// halves are the descriptors of a socket, one or two.
func halves(s *sockets.Socket) []*sys.FD {
	if s.Alternate == nil {
		return []*sys.FD{s.FD}
	}
	return []*sys.FD{s.FD, s.Alternate}
}

// setBacklog also sets what Heal restores after a worker's listen().
func (h *Handoff) setBacklog(s *sockets.Socket, backlog int) error {
	if note := Heal(s); note != "" { // one that does not listen would take another place in its group
		h.Host.Note(Warning, note)
	}
	limit := s.Backlog
	h.restore = append(h.restore, func() { s.Backlog = limit })
	for _, fd := range halves(s) {
		if _, limit, err := divert.Queue(fd.Num()); err == nil {
			h.restore = append(h.restore, func() { _ = sys.Listen(fd.Num(), limit) })
		}
		if err := sys.Listen(fd.Num(), sys.BacklogOr(backlog)); err != nil {
			return err
		}
	}
	if s.Info.Network != "tcp" {
		return nil
	}
	var err error
	_, s.Backlog, err = sys.Backlog(s.FD.Num())
	return err
}

func (h *Handoff) setDeferAccept(s *sockets.Socket, seconds int) error {
	for _, fd := range halves(s) {
		was, err := sys.DeferAccept(fd.Num())
		if err != nil {
			return err
		}
		h.restore = append(h.restore, func() { _ = sys.SetDeferAccept(fd.Num(), was) })
		if err := sys.SetDeferAccept(fd.Num(), seconds); err != nil {
			return err
		}
	}
	return nil
}

// setOwner is for a socket whose file is there.
func (h *Handoff) setOwner(s *sockets.Socket, want *config.Socket) error {
	path := s.Info.Address
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	h.restore = append(h.restore, func() {
		if s.File == fileID(path) {
			_ = os.Chmod(path, info.Mode().Perm())
			_ = os.Chown(path, int(st.Uid), int(st.Gid))
		}
	})
	return own(path, want)
}
