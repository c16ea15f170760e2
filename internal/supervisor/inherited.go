package supervisor

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/activation"
	"github.com/8265a91a/supervisor/pkg/fdstore"
)

// inherited is what came with LISTEN_FDS, sorted by what the names say. It owns its descriptors until adopt has
// taken them over.
type inherited struct {
	states     []*sys.FD
	workers    map[int]*sys.FD
	notifies   map[int]*sys.FD
	binds      map[int]*sys.FD
	stored     []named // sockets from the FD store
	alternates []named
	pushed     []named
	units      []named // what .socket units pass
	bundle     int     // the highest number seen
}

type named struct {
	name string
	fd   *sys.FD
	// prefix is what comes before the name in that of the entry of a socket: of a second half it tells the order.
	prefix string
}

// socketOf reads the name of an entry that is a socket; ok is false for any other.
func socketOf(entry string, fd *sys.FD) (n named, ok bool) {
	for _, prefix := range []string{prefixSocket, prefixAlternate, prefixFirst} {
		if name, ok := strings.CutPrefix(entry, prefix); ok {
			return named{name, fd, prefix}, true
		}
	}
	return named{}, false
}

// sort takes ownership of the descriptors. One that it cannot place is closed, with a warning.
func sort(list []activation.Descriptor, d *Daemon) *inherited {
	in := &inherited{workers: map[int]*sys.FD{}, notifies: map[int]*sys.FD{}, binds: map[int]*sys.FD{}}
	for _, desc := range list {
		if !strings.HasPrefix(desc.Name, entryPrefix) {
			in.units = append(in.units, named{name: desc.Name, fd: desc.FD})
			continue
		}
		inode, _ := sys.Inode(desc.FD.Num())
		d.keeper.known(desc.Name, desc.FD.Num(), inode)
		if err := in.place(desc.Name, desc.FD); err != nil {
			d.Note(handoff.Warning, fmt.Sprintf("FD store entry %s is not used and removed: %v", desc.Name, err))
			desc.FD.Close()
		}
	}
	return in
}

// place sorts one entry of the FD store. On error the descriptor stays the caller's.
func (in *inherited) place(name string, fd *sys.FD) error {
	numbered := func(prefix string, into map[int]*sys.FD) error {
		n, err := strconv.Atoi(strings.TrimPrefix(name, prefix))
		if err != nil || n < 1 {
			return errors.New("the name has no number")
		}
		if into[n] != nil {
			return errors.New("there are two of them")
		}
		into[n] = fd
		return nil
	}
	socket, isSocket := socketOf(name, fd)
	switch {
	case isSocket && socket.prefix == prefixSocket:
		in.stored = append(in.stored, socket)
	case isSocket:
		in.alternates = append(in.alternates, socket)
	case name == entryState || name == entryStateNext:
		in.states = append(in.states, fd)
	case strings.HasPrefix(name, prefixWorker):
		return numbered(prefixWorker, in.workers)
	case strings.HasPrefix(name, prefixNotify):
		return numbered(prefixNotify, in.notifies)
	case strings.HasPrefix(name, prefixBind):
		return numbered(prefixBind, in.binds)
	case strings.HasPrefix(name, prefixPushed), strings.HasPrefix(name, prefixMore):
		in.pushed = append(in.pushed, named{name: name, fd: fd})
	case strings.HasPrefix(name, prefixBundle):
		return in.unpack(name, fd)
	default:
		return errors.New("no such entry is known")
	}
	return nil
}

// unpack takes the sockets out of a bundle; the bundle in the store keeps them.
func (in *inherited) unpack(name string, fd *sys.FD) error {
	n, err := strconv.Atoi(strings.TrimPrefix(name, prefixBundle))
	if err != nil {
		return errors.New("the name has no number")
	}
	list, err := fdstore.ReadBundle(fd)
	if err != nil {
		return err
	}
	fd.Close()
	in.bundle = max(in.bundle, n)
	for _, e := range list {
		switch s, ok := socketOf(e.Name, e.FD); {
		case !ok:
			e.FD.Close() // no supervisor has put it there
		case s.prefix == prefixSocket:
			in.stored = append(in.stored, s)
		default:
			// First: if it is stored by itself, too, it is on its way to another name, which is this one.
			in.alternates = slices.Insert(in.alternates, 0, s)
		}
	}
	return nil
}

func (in *inherited) close() {
	sys.CloseAll(in.states)
	for _, m := range []map[int]*sys.FD{in.workers, in.notifies, in.binds} {
		for _, fd := range m {
			fd.Close()
		}
	}
	for _, list := range [][]named{in.stored, in.alternates, in.pushed, in.units} {
		for _, n := range list {
			n.fd.Close()
		}
	}
}
