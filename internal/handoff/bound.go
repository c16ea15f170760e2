package handoff

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
)

// bind opens the sockets that the configuration names and that nobody holds, and forgets, when the handoff
// succeeds, those that it no longer names (see dropUnused).
func (h *Handoff) bind() error {
	byName := map[string][]*sockets.Socket{}
	var others []*sockets.Socket
	misnamed := misnamed(h.Config)
	h.Host.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(nil) {
			byName[s.FDName] = append(byName[s.FDName], s)
			if misnamed(s) {
				others = append(others, s)
			}
		}
	})
	for i := range h.Config.Sockets {
		want := &h.Config.Sockets[i]
		have := heldFor(byName[want.Name], want)
		if have == nil {
			s, err := h.rename(others, want)
			if err != nil {
				return err
			}
			if s != nil {
				have = append(have, s)
			}
		}
		if have != nil {
			var err error
			h.Host.Do(func(*sockets.Set) {
				for _, s := range have {
					err = errors.Join(err, h.adjust(s, want))
				}
			})
			if err != nil {
				return err
			}
			continue
		}
		if want.Listen == (config.Address{}) {
			return fmt.Errorf("socket %q is neither passed by a .socket unit nor has it a listen address in the configuration", want.Name)
		}
		s, err := open(want, steers(h.Config, sockets.Bound, want.Listen.Network))
		if err != nil {
			return fmt.Errorf("bind socket %q to %s: %w", want.Name, want.Listen, err)
		}
		h.Host.Do(func(held *sockets.Set) {
			s, _ = held.Add(s)
			h.bound = append(h.bound, s)
		})
	}
	return nil
}

// heldFor finds, among the held sockets of that name, those that a [[socket]] table means: by address where it has one,
// so that a changed address is a new socket. A .socket unit may list several.
func heldFor(candidates []*sockets.Socket, want *config.Socket) (found []*sockets.Socket) {
	for _, s := range candidates {
		if want.Listen == (config.Address{}) || s.Origin == sockets.Unit || SameAddress(want.Listen, s.Info) {
			found = append(found, s)
		}
	}
	return found
}

// rename finds, among the sockets that were bound for a [[socket]] of another name, the one with the same address, and
// gives it the new name. It is nil where there is none.
func (h *Handoff) rename(others []*sockets.Socket, want *config.Socket) (*sockets.Socket, error) {
	i := slices.IndexFunc(others, func(s *sockets.Socket) bool { return SameAddress(want.Listen, s.Info) })
	if i < 0 {
		return nil, nil
	}
	s := others[i]
	if len(rebind(s, want)) > 0 {
		return nil, fmt.Errorf("bind socket %q to %s: the address is that of the held socket %q, which the configuration does not name any more "+
			"and whose free_bind or v6only differs: reload once without either", want.Name, want.Listen, s.FDName)
	}
	h.Host.Do(func(held *sockets.Set) {
		name, fdname := s.Name, s.FDName
		h.restore = append(h.restore, func() { held.Rename(s, name, fdname) })
		held.Rename(s, want.Name, want.Name)
	})
	return s, nil
}

// SameAddress tells whether a configured address is the one a socket is bound to.
func SameAddress(a config.Address, info sys.Socket) bool {
	if a.Network != info.Network {
		return false
	}
	switch a.Network {
	case "tcp", "udp":
		host := a.Host
		if host == "" {
			host = "::"
		}
		return int(a.Port) == info.Port && sys.SameHost(host, info.Host)
	case "vsock":
		return info.Address == fmt.Sprintf("%d:%d", a.CID, a.Port)
	}
	return a.Path == info.Address
}

// open binds one configured socket, as the first half of a pair where it is to be steered. A stale path of a unix socket, left by nobody alive, is replaced.
func open(want *config.Socket, pair bool) (*sockets.Socket, error) {
	spec := sys.ListenSpec{
		Network: want.Listen.Network, Host: want.Listen.Host, Port: want.Listen.Port, CID: want.Listen.CID, Path: want.Listen.Path,
		Backlog: want.Backlog, V6Only: want.V6Only, FreeBind: want.FreeBind, DeferAccept: int(want.DeferAccept.Seconds()),
		ReusePort: pair,
	}
	path := unixPath(want.Listen)
	if path != "" {
		if err := sys.RemoveStaleSocket(path); err != nil {
			return nil, err
		}
	}
	fd, err := sys.OpenListener(spec)
	if err != nil {
		return nil, err
	}
	if path != "" {
		if err := own(path, want); err != nil {
			fd.Close()
			os.Remove(path)
			return nil, err
		}
	}
	s, err := sockets.New(fd, sockets.Bound, want.Name)
	if err != nil {
		return nil, err
	}
	s.Nonblock, s.File, s.Options = want.Nonblock, fileID(path), optionsOf(want)
	return s, nil
}

// unixPath is the file of a socket that has one.
func unixPath(a config.Address) string {
	switch a.Network {
	case "unix", "unixgram", "unixpacket":
		if a.Path != "" && a.Path[0] != '@' {
			return a.Path
		}
	}
	return ""
}

// own gives a unix socket's file its mode and owner.
func own(path string, want *config.Socket) error {
	if want.Mode != nil {
		if err := os.Chmod(path, os.FileMode(*want.Mode)); err != nil {
			return err
		}
	}
	uid, err := number(want.User, func() (string, error) {
		u, err := user.Lookup(want.User)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
	if err != nil {
		return err
	}
	gid, err := number(want.Group, func() (string, error) {
		g, err := user.LookupGroup(want.Group)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
	if err != nil || uid < 0 && gid < 0 {
		return err
	}
	return os.Chown(path, uid, gid)
}

// number is an owner that is given by number, or by a name that lookup knows, and -1 where none is given.
func number(owner string, lookup func() (string, error)) (int, error) {
	if owner == "" {
		return -1, nil
	}
	if n, err := strconv.Atoi(owner); err == nil && n >= 0 {
		return n, nil
	}
	id, err := lookup()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(id)
}

// unbind closes what this handoff bound, for a socket without a worker is a black hole, and puts back what it changed of
// other sockets.
func (h *Handoff) unbind() {
	h.Host.Do(func(held *sockets.Set) {
		for _, put := range slices.Backward(h.restore) {
			put()
		}
		for _, s := range h.bound {
			RemoveBound(held, s)
		}
	})
	h.bound, h.restore = nil, nil
}

// RemoveBound forgets a socket that the supervisor bound, and its file, unless another has taken that place. One of another
// origin is only forgotten.
func RemoveBound(held *sockets.Set, s *sockets.Socket) {
	// As long as the socket is open nothing else gets the number of its file.
	if s.Origin == sockets.Bound && s.File != "" && s.File == fileID(s.Info.Address) {
		os.Remove(s.Info.Address)
	}
	held.Remove(s)
}

// Reclaim makes a socket that no state describes what it was if cfg names it: one that the supervisor bound. As such the
// next worker must listen on it, it goes when a configuration leaves it out, and its file goes with it.
func Reclaim(s *sockets.Socket, cfg *config.Config) {
	i := slices.IndexFunc(cfg.Sockets, func(t config.Socket) bool { return t.Name == s.FDName && SameAddress(t.Listen, s.Info) })
	if s.Origin != sockets.Fetched || i < 0 {
		return
	}
	s.Origin, s.Nonblock = sockets.Bound, cfg.Sockets[i].Nonblock
	path := unixPath(cfg.Sockets[i].Listen)
	info, err := os.Lstat(path)
	if err != nil { // most often as there is no path
		return
	}
	if file, err := sys.UnixFile(s.Info.Inode); err == nil && file == uint32(info.Sys().(*syscall.Stat_t).Ino) {
		s.File = fileID(path)
	}
}

// replaced tells whether the file of a Unix socket that was fetched is gone, or another's by now, as when a server makes its
// admin socket anew in each generation: nobody reaches it any more.
func replaced(s *sockets.Socket) bool {
	path := filePath(s.Info)
	if s.Origin != sockets.Fetched || path == "" {
		return false
	}
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist) || err == nil && s.File != "" && s.File != fileID(path)
}

// filePath is the file of a Unix socket, if that can be told: a relative path begins where its worker was.
func filePath(info sys.Socket) string {
	if strings.HasPrefix(info.Network, "unix") && strings.HasPrefix(info.Address, "/") {
		return info.Address
	}
	return ""
}

// fileID tells the file at path from all others; it is empty where there is none.
func fileID(path string) string {
	info, err := os.Lstat(path)
	if err != nil {
		return ""
	}
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
