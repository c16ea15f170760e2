package supervisor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/probe"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
)

// adoptSockets merges what .socket units pass and what the store holds. The unit's copy comes first: if both exist
// they are the same socket, and its name is the administrator's.
func (d *Daemon) adoptSockets(in *inherited, last *state) {
	d.takeBack(in, last)
	known := last.sockets()
	stored := cookies(in.stored)
	position := map[string]int{}
	for _, u := range in.units {
		u.name = strings.ReplaceAll(u.name, ":", "_") // of a unit such as "tp@a:b.socket": it parts names for the worker
		s, err := sockets.New(u.fd, sockets.Unit, u.name)
		if err != nil {
			d.Note(handoff.Warning, fmt.Sprintf("descriptor %q of a .socket unit is ignored: it is no socket (%v)", u.name, err))
			continue
		}
		if m, ok := known[s.Cookie]; ok {
			m.Origin, m.FDName = sockets.Unit, u.name
			s.Meta = m
		}
		if err := restoreMode(s, stored[s.Cookie]); err != nil {
			d.Note(handoff.Warning, fmt.Sprintf("the mode of socket %s (%s) is not restored: %v", u.name, s.Info.Address, err))
		}
		s.Index = position[u.name]
		position[u.name]++
		d.held.Add(s)
	}
	for _, e := range in.stored {
		d.adoptStored(e, known, last != nil)
	}
	for _, e := range in.alternates {
		d.adoptAlternate(e, known)
	}
}

// takeBack looks for the sockets that the state lists and that have not come: systemd drops entries, without telling, when
// FileDescriptorStoreMax= is lowered or its store is emptied. A worker that lives has its own open. It is one warning.
func (d *Daemon) takeBack(in *inherited, last *state) {
	if last == nil {
		return
	}
	came := cookies(slices.Concat(in.units, in.stored, in.alternates))
	missing := map[uint64]named{}
	for _, m := range last.Sockets {
		if m.Cookie != 0 && !came[m.Cookie] {
			missing[m.Cookie] = named{name: m.Name, prefix: prefixSocket}
		}
		if m.Second != 0 && !came[m.Second] {
			missing[m.Second] = named{name: m.Name, prefix: alternatePrefix(&sockets.Socket{Meta: m})}
		}
	}
	if len(missing) == 0 {
		return
	}
	count := len(missing)
	err := d.takeFromWorkers(in, missing)
	for i := range last.Sockets {
		m := &last.Sockets[i]
		if _, lost := missing[m.Second]; lost { // it is no pair any more
			m.Second, m.Exchanged, m.Steered = 0, false, 0
		}
		if _, lost := missing[m.Cookie]; lost && m.Second != 0 {
			in.alone(m)
		}
	}
	text := fmt.Sprintf("sockets that the last supervisor held are missing in the FD store, FileDescriptorStoreMax= was lowered or it was emptied: %d of %d are taken back from workers", count-len(missing), count)
	if len(missing) > 0 {
		text += ", what waited in the others is lost"
	}
	if err != nil {
		text += ": " + err.Error()
	}
	d.Note(handoff.Warning, text)
}

// takeFromWorkers takes what is missing, by identity, from the processes that have it open, and forgets that it is missing.
func (d *Daemon) takeFromWorkers(in *inherited, missing map[uint64]named) error {
	var pids []int
	for _, g := range d.gens {
		if g.State != handoff.Gone {
			members, err := g.Tree.PIDs()
			if err != nil {
				return err
			}
			pids = append(pids, members...)
		}
	}
	found, err := probe.TakeListeners(pids, func(uint64) bool { return true })
	for _, f := range found {
		cookie, _ := sys.Cookie(f.Dup.Num())
		n, ok := missing[cookie]
		if !ok {
			f.Dup.Close()
			continue
		}
		delete(missing, cookie)
		n.fd = f.Dup
		if n.prefix == prefixSocket {
			in.stored = append(in.stored, n)
		} else {
			in.alternates = append(in.alternates, n)
		}
	}
	return err
}

// alone makes the second half of a pair the socket itself, since the first is lost.
func (in *inherited) alone(m *sockets.Meta) {
	for i, a := range in.alternates {
		if cookie, err := sys.Cookie(a.fd.Num()); err == nil && cookie == m.Second {
			in.alternates = slices.Delete(in.alternates, i, i+1)
			in.stored = append(in.stored, a)
			break
		}
	}
	m.Cookie, m.Second, m.Exchanged, m.Steered = m.Second, 0, false, 0
}

// findSlots gives generations that no state describes the slot whose half of the pairs they hold. With the wrong one all
// that arrives would be steered to where nobody accepts.
func (d *Daemon) findSlots(list []*handoff.Generation) {
	slots := map[uint64]int{} // by inode
	var inodes []uint64
	for _, s := range d.held.Ordered(nil) {
		if s.Alternate == nil {
			continue
		}
		for slot, inode := range s.Inodes() {
			slots[inode] = slot
			inodes = append(inodes, inode)
		}
	}
	for _, g := range list {
		if g.State == handoff.Gone || len(inodes) == 0 {
			continue
		}
		holders, err := openBy(g, inodes)
		if err != nil {
			d.Note(handoff.Warning, fmt.Sprintf("cannot tell which sockets generation %d accepts on, new connections may wait for nobody: %v", g.N, err))
			continue
		}
		halves := [2]int{}
		for inode := range holders {
			halves[slots[inode]]++
		}
		if halves[1] > halves[0] {
			g.Slot = 1
		}
		if g == d.serving {
			d.slot = g.Slot
		}
	}
}

// cookies returns the identities of sockets.
func cookies(list []named) map[uint64]bool {
	found := map[uint64]bool{}
	for _, n := range list {
		if cookie, err := sys.Cookie(n.fd.Num()); err == nil {
			found[cookie] = true
		}
	}
	return found
}

// restoreMode undoes what systemd does to O_NONBLOCK of a .socket unit's socket at every start of the service. The unit
// says NonBlocking=yes, since a living event-driven worker that blocks in accept(2) is the greater harm; here the socket
// gets the mode back that the last worker left it with, or, if it is new, the one that workers expect: blocking. One
// that was stored, but that no state describes, stays as it is.
func restoreMode(s *sockets.Socket, stored bool) error {
	switch {
	case s.LastNonblock != nil:
		return sys.SetNonblock(s.FD.Num(), *s.LastNonblock)
	case !stored:
		return sys.SetNonblock(s.FD.Num(), false)
	}
	return nil
}

func (d *Daemon) adoptStored(e named, known map[uint64]sockets.Meta, trusted bool) {
	entry := e.prefix + e.name
	s, err := sockets.New(e.fd, sockets.Fetched, e.name)
	if err != nil {
		d.Note(handoff.Warning, fmt.Sprintf("FD store entry %s is not used and removed: it is no socket (%v)", entry, err))
		return
	}
	if m, ok := known[s.Cookie]; ok {
		s.Meta = m
	} else {
		s.Name = e.name
		if trusted && !d.wanted(s) {
			d.Note(handoff.Warning, fmt.Sprintf("socket %s (%s) was stored by a handoff that did not end and is given up: the worker does not hold it", s.Name, s.Info.Address))
			s.FD.Close()
			return
		}
	}
	if _, single := d.keeper.have[entry]; single {
		d.keeper.have[entry] = s.Cookie
	}
	d.held.Add(s)
}

// wanted tells whether a socket that the state does not know is to be kept: with a serving worker, if that has it.
func (d *Daemon) wanted(s *sockets.Socket) bool {
	if d.serving == nil || d.starting != nil && d.holds(d.starting, s.Info.Inode) {
		return true
	}
	return d.holds(d.serving, s.Info.Inode)
}

func (d *Daemon) adoptAlternate(e named, known map[uint64]sockets.Meta) {
	entry := e.prefix + e.name
	info, err := sys.Inspect(e.fd.Num())
	s := d.pairOf(e.name, info)
	if err != nil || s == nil || s.Alternate != nil && d.held.ByCookie(info.Cookie) != s {
		d.Note(handoff.Warning, fmt.Sprintf("FD store entry %s is not used and removed: there is no such pair", entry))
		e.fd.Close()
		return
	}
	if s.Alternate == nil {
		d.held.Pair(s, e.fd)
		if _, ok := known[s.Cookie]; !ok {
			s.Exchanged = e.prefix == prefixFirst
		}
	} else {
		e.fd.Close() // stored under two names
	}
	if _, single := d.keeper.have[entry]; single {
		d.keeper.have[entry] = s.Second
	}
}

// pairOf finds the held socket whose second half info is. Its name in the store is that of the socket, or the one before
// the last supervisor renamed it.
func (d *Daemon) pairOf(name string, info sys.Socket) *sockets.Socket {
	fits := func(s *sockets.Socket) bool { return s.Info.Network == info.Network && s.Info.Address == info.Address }
	if s := d.held.Get(name); s != nil && fits(s) {
		return s
	}
	all := d.held.Ordered(nil)
	if i := slices.IndexFunc(all, func(s *sockets.Socket) bool { return s.Origin == sockets.Bound && fits(s) }); i >= 0 {
		return all[i]
	}
	return nil
}
