package supervisor

import (
	"errors"
	"slices"

	"github.com/8265a91a/supervisor/internal/sys"
)

// DecodeState reads a state and writes it again.
func DecodeState(data []byte, name string) ([]byte, error) {
	s, err := decodeState(data, name)
	if err != nil {
		return nil, err
	}
	for _, g := range s.Generations {
		s.config(g.N, Options{Name: name, ConfigPath: "/" + name + ".toml"})
	}
	s.sockets()
	return s.encode()
}

// PlaceEntries sorts entries of the FD store by their names, with one descriptor each, and closes what was placed. It
// returns the names that were refused, and an error if a descriptor was not placed once.
func PlaceEntries(names []string, fd *sys.FD) (refused []string, err error) {
	in := &inherited{workers: map[int]*sys.FD{}, notifies: map[int]*sys.FD{}, binds: map[int]*sys.FD{}}
	var placed, left []*sys.FD
	for _, name := range names {
		dup, err := fd.Dup()
		if err != nil {
			return nil, err
		}
		if in.place(name, dup) == nil {
			placed = append(placed, dup)
		} else {
			left, refused = append(left, dup), append(refused, name)
		}
	}
	in.close()
	if slices.ContainsFunc(placed, func(fd *sys.FD) bool { return fd.Num() >= 0 }) {
		err = errors.New("one that was placed is not held")
	}
	if slices.ContainsFunc(left, func(fd *sys.FD) bool { return fd.Num() < 0 }) {
		err = errors.New("one that was refused is closed or held")
	}
	sys.CloseAll(left)
	return refused, err
}

// ReadPushed takes the name of an entry apart and makes it again.
func ReadPushed(entry string) (name string, again string, err error) {
	name, number, err := parsePushed(entry)
	return name, (&pushed{Name: name, number: number}).entry(), err
}

// TellStore answers in systemd's place how many descriptors it holds, and how many it would.
func (o *Options) TellStore(tell func() (count, limit int, ok bool)) {
	o.tellStore = func() (storeUse, bool) {
		count, limit, ok := tell()
		return storeUse{count, limit}, ok
	}
}

// IsMain tells whether the answer is about this process.
var IsMain = isMain
