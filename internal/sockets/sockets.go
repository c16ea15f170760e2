// Package sockets is the set of sockets that a service holds: what outlives
// every worker and, by way of systemd's FD store, every supervisor.
//
// A socket is known by three things: a name, unique in the set and stable over
// restarts; an identity, SO_COOKIE, equal for every descriptor of the same
// socket in every process; and an origin. Addresses are no identity: shards
// and SO_REUSEPORT siblings share one.
package sockets

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/8265a91a/supervisor/internal/sys"
)

// Origin tells where a held socket came from.
type Origin string

// The origins.
const (
	Unit    Origin = "unit"    // a .socket unit passed it
	Bound   Origin = "bound"   // the supervisor bound it from the configuration
	Fetched Origin = "fetched" // it came from a worker, by _getsocks or pidfd_getfd
	Pushed  Origin = "pushed"  // a worker sent it with FDSTORE=1
)

// Meta is what is known of a socket beside its descriptor, as the state keeps it.
type Meta struct {
	Name   string `json:"name"`
	Origin Origin `json:"origin"`
	Cookie uint64 `json:"cookie"`
	// Second is the identity of the second half of a pair, 0 where there is none.
	Second uint64 `json:"second,omitempty"`
	// FDName is the name the worker sees in LISTEN_FDNAMES. Two sockets of one .socket unit share it.
	FDName string `json:"fdname"`
	// Index keeps the order in which one .socket unit listed its sockets.
	Index int `json:"index,omitempty"`
	// Namespace and Interface are what HAProxy says of its listener; they cannot be read back from the socket.
	Namespace string `json:"namespace,omitempty"`
	Interface string `json:"interface,omitempty"`
	// File identifies the file of a Unix socket that the supervisor bound, or a worker from which it was fetched with
	// pidfd_getfd: another may be bound in that place.
	File string `json:"file,omitempty"`
	// Backlog is the accept queue's limit that the socket had when it was first held, or when the configuration last
	// changed it; 0 where it has none.
	Backlog int `json:"backlog,omitempty"`
	// Options are those of its [[socket]] table that are in force.
	Options Options `json:"options,omitzero"`
	// Nonblock is the mode the configuration asks for; nil leaves it alone.
	Nonblock *bool `json:"nonblock,omitempty"`
	// LastNonblock is the mode that a .socket unit's socket had when the state was written: systemd sets or clears
	// O_NONBLOCK on these, under the feet of a living worker, each time it starts the service (NonBlocking=).
	LastNonblock *bool `json:"last_nonblock,omitempty"`
	// Steered is the slot whose half of a pair gets what arrives. Exchanged says that in the kernel's order of the pair
	// the half of slot 1 comes first.
	Steered   int  `json:"steered,omitempty"`
	Exchanged bool `json:"exchanged,omitempty"`
	// Claim is who pushed it.
	Claim Claim `json:"claim,omitzero"`
	// Unclaimed says that the serving worker does not accept on it although it was offered.
	Unclaimed bool `json:"unclaimed,omitempty"`
}

// Options are those of a [[socket]] table that can be changed while the socket is open. The zero value of one says that it
// was never set.
type Options struct {
	Backlog     int    `json:"backlog,omitempty"`
	DeferAccept int    `json:"defer_accept,omitempty"` // seconds
	Mode        string `json:"mode,omitempty"`         // octal
	User        string `json:"user,omitempty"`
	Group       string `json:"group,omitempty"`
}

// Socket is one held socket. The set owns its descriptors.
type Socket struct {
	Meta
	FD   *sys.FD
	Info sys.Socket
	// Alternate is the second socket of a steered pair, for the generations of slot 1; nil where there is none.
	Alternate *sys.FD
}

// Slot lends the descriptor for generations of the given slot (0 or 1).
func (s *Socket) Slot(slot int) *sys.FD {
	if slot == 1 && s.Alternate != nil {
		return s.Alternate
	}
	return s.FD
}

// Inode is the number by which /proc shows the descriptor for generations of the given slot.
func (s *Socket) Inode(slot int) (uint64, error) {
	if fd := s.Slot(slot); fd != s.FD {
		return sys.Inode(fd.Num())
	}
	return s.Info.Inode, nil
}

// Inodes lists the socket's, and if it is a pair, first that of the half for generations of slot 0.
func (s *Socket) Inodes() []uint64 {
	inodes := []uint64{s.Info.Inode}
	if second, err := s.Inode(1); err == nil && s.Alternate != nil {
		inodes = append(inodes, second)
	}
	return inodes
}

// Place is that of the half for generations of the given slot in the kernel's order of the pair.
func (s *Socket) Place(slot int) int {
	if s.Alternate == nil {
		return 0
	}
	if s.Exchanged {
		return 1 - slot
	}
	return slot
}

func (s *Socket) close() {
	s.FD.Close()
	s.Alternate.Close()
}

// New takes ownership of fd, which it closes on error, and describes it.
func New(fd *sys.FD, origin Origin, fdname string) (*Socket, error) {
	info, err := sys.Inspect(fd.Num())
	if err != nil {
		fd.Close()
		return nil, err
	}
	s := &Socket{FD: fd, Info: info, Meta: Meta{Origin: origin, FDName: fdname, Cookie: info.Cookie}}
	if info.Network == "tcp" && info.Listening {
		if _, limit, err := sys.Backlog(fd.Num()); err == nil {
			s.Backlog = limit
		}
	}
	return s, nil
}

// Set is the held sockets. It is not safe for concurrent use: the daemon's loop owns it.
type Set struct {
	byName   map[string]*Socket
	byCookie map[uint64]*Socket // both sockets of a steered pair lead to it
	// next is the first number after a name that was not given yet: thousands of sockets may want the same.
	next map[string]int
	// sorted is nil when something has changed since it was made.
	sorted []*Socket
}

// NewSet returns an empty set.
func NewSet() *Set {
	return &Set{byName: map[string]*Socket{}, byCookie: map[uint64]*Socket{}, next: map[string]int{}}
}

// Add takes ownership of s. When the set already holds the same socket the newcomer's descriptor is closed, what it
// knows in addition is kept, and the held one is returned with added == false. A name is made where s has none.
func (set *Set) Add(s *Socket) (held *Socket, added bool) {
	if held := set.byCookie[s.Cookie]; held != nil {
		if s.Namespace != "" || s.Interface != "" {
			held.Namespace, held.Interface = s.Namespace, s.Interface
		}
		s.close()
		return held, false
	}
	if s.Name == "" {
		s.Name = set.freeName(s)
	} else if set.byName[s.Name] != nil {
		s.Name = set.numbered(s.Name)
	}
	set.byName[s.Name] = s
	set.byCookie[s.Cookie] = s
	set.sorted = nil
	return s, true
}

// PairBefore is Pair with the roles exchanged: fd, which info describes, becomes the first socket of s, and what was the
// first one the second.
func (set *Set) PairBefore(s *Socket, fd *sys.FD, info sys.Socket) {
	s.FD, s.Alternate = fd, s.FD
	s.Cookie, s.Second, s.Info = info.Cookie, s.Cookie, info
	set.byCookie[s.Cookie] = s
}

// Pair takes ownership of fd as the second socket of the held s: whoever brings that socket, too, means s.
func (set *Set) Pair(s *Socket, fd *sys.FD) {
	s.Alternate = fd
	if cookie, err := sys.Cookie(fd.Num()); err == nil {
		s.Second = cookie
		set.byCookie[cookie] = s
	}
}

// Rename gives the held s another name in the set, with a number if it is taken, and another one for workers.
func (set *Set) Rename(s *Socket, name, fdname string) {
	delete(set.byName, s.Name)
	s.Name, s.FDName = set.numbered(name), fdname
	set.byName[s.Name] = s
	set.sorted = nil
}

// Remove closes the socket's descriptors and forgets it.
func (set *Set) Remove(s *Socket) {
	delete(set.byName, s.Name)
	delete(set.byCookie, s.Cookie)
	set.sorted = nil
	delete(set.byCookie, s.Second)
	s.close()
}

// Get returns the socket called name, or nil.
func (set *Set) Get(name string) *Socket { return set.byName[name] }

// ByCookie returns the socket with that identity, or nil.
func (set *Set) ByCookie(cookie uint64) *Socket { return set.byCookie[cookie] }

// Len is the number of held sockets.
func (set *Set) Len() int { return len(set.byName) }

// Close closes every descriptor.
func (set *Set) Close() {
	for _, s := range set.byName {
		s.close()
	}
	clear(set.byName)
	clear(set.byCookie)
	set.sorted = nil
}

// Ordered returns all sockets in the order that every worker sees: first those that the configuration names, in its
// order, then by the name the worker sees, by position within one unit, and by unique name. The order of systemd's
// LISTEN_FDS is not used: it changes with every daemon-reload.
// The result is the caller's only to read; it stays as it is when the set changes.
func (set *Set) Ordered(configured []string) []*Socket {
	if set.sorted == nil {
		set.sorted = slices.SortedFunc(maps.Values(set.byName), func(a, b *Socket) int {
			return cmp.Or(cmp.Compare(a.seen(), b.seen()), cmp.Compare(a.Index, b.Index), compareNatural(a.Name, b.Name))
		})
	}
	if len(configured) == 0 {
		return set.sorted
	}
	rank := make(map[string]int, len(configured))
	for i, name := range configured {
		rank[name] = i - len(configured)
	}
	ranked := slices.Clone(set.sorted)
	slices.SortStableFunc(ranked, func(a, b *Socket) int { return cmp.Compare(rank[a.FDName], rank[b.FDName]) })
	return ranked
}

// seen is the name the worker sees: the unique one where there is no other, here without its number.
func (s *Socket) seen() string {
	if s.FDName != "" {
		return s.FDName
	}
	base, _ := cutNumber(s.Name)
	return base
}

// compareNatural puts "x.2" before "x.10", and "x" before both.
func compareNatural(a, b string) int {
	abase, anum := cutNumber(a)
	bbase, bnum := cutNumber(b)
	return cmp.Or(cmp.Compare(abase, bbase), cmp.Compare(anum, bnum), cmp.Compare(a, b))
}

// cutNumber returns what is before ".N", and N; a name without a number is its own base.
func cutNumber(name string) (base string, n int) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return name, -1
	}
	n, err := strconv.Atoi(name[i+1:])
	if err != nil || n < 0 {
		return name, -1
	}
	return name[:i], n
}

// freeName makes a unique name that systemd accepts as FDNAME: the worker's name for the socket where it has one,
// otherwise network and address.
func (set *Set) freeName(s *Socket) string {
	if s.FDName == "" {
		return set.numbered(Describe(s.Info))
	}
	return set.numbered(clean(s.FDName))
}

func (set *Set) numbered(name string) string {
	if set.byName[name] == nil {
		return name
	}
	for i := max(2, set.next[name]); ; i++ {
		if n := fmt.Sprintf("%s.%d", name, i); set.byName[n] == nil {
			set.next[name] = i + 1
			return n
		}
	}
}

// maxName leaves room for prefixes and numbers within FDNAME's 255 bytes.
const maxName = 200

// Describe makes a name that FDNAME allows out of network and address.
func Describe(info sys.Socket) string {
	name := info.Network + "-" + info.Address
	if info.Device != "" {
		name += "%" + info.Device
	}
	return clean(name)
}

// clean replaces what FDNAME does not allow: colons, control characters, all beyond ASCII, and backslashes, which
// systemd's parser eats. A .socket unit without FileDescriptorName= brings such a name: the unit's own, escapes included.
func clean(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e || r == ':' || r == '\\' {
			return '_'
		}
		return r
	}, name)
	return name[:min(len(name), maxName)]
}
