package fdstore

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

var (
	// ErrNoNotifySocket says that the process was not started by systemd with a notify socket (or that NotifyAccess=
	// keeps it from the process), so that nothing can be stored.
	ErrNoNotifySocket = errors.New("no notify socket: NOTIFY_SOCKET is not set")
	// ErrFull says that the store holds as many entries as FileDescriptorStoreMax= allows; nothing was sent.
	ErrFull = errors.New("file descriptor store is full (FileDescriptorStoreMax=)")
	// ErrDuplicate says that the same socket is stored already; systemd would drop the new entry and keep the old name.
	ErrDuplicate = errors.New("socket is in the file descriptor store already")
	// ErrBusy says that the queue of the notify socket stayed full: nobody reads it at the moment.
	ErrBusy = errors.New("nobody reads the notify socket, its queue is full")
)

// Store sends messages to systemd and accounts for what it was told to keep. Its methods may be called from several
// goroutines; messages arrive in the order of the calls of one goroutine.
type Store struct {
	socket  string
	timeout atomic.Int64 // a time.Duration

	mu    sync.Mutex
	max   int
	names map[string][]uint64 // cookies of what is stored under the name, 0 for what is no socket
	count int
}

// Open returns the store behind the notify socket, the value of $NOTIFY_SOCKET: a path, or "@name" for the abstract
// namespace. It sends nothing. An empty socket is [ErrNoNotifySocket].
func Open(socket string) (*Store, error) {
	switch {
	case socket == "":
		return nil, ErrNoNotifySocket
	case socket[0] != '/' && socket[0] != '@':
		return nil, fmt.Errorf("notify socket %q is neither a path nor an abstract name", socket)
	}
	return &Store{socket: socket, names: map[string][]uint64{}}, nil
}

// SetMax sets the number of entries that systemd keeps, the value of $FDSTORE; 0 means that it is not known, and
// [ErrFull] is then never returned.
func (s *Store) SetMax(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.max = n
}

// SetTimeout bounds how long a message waits while the receiver's queue is full: after d the method fails with
// [ErrBusy]. 0, the default, waits for as long as it takes, as sd_notify(3) does.
func (s *Store) SetTimeout(d time.Duration) { s.timeout.Store(int64(d)) }

func (s *Store) send(message string, fds ...int) error {
	return s.sendWithin(time.Duration(s.timeout.Load()), message, fds...)
}

func (s *Store) sendWithin(d time.Duration, message string, fds ...int) error {
	err := sys.SendToWithin(s.socket, []byte(message), fds, d)
	if errors.Is(err, syscall.EAGAIN) {
		return ErrBusy
	}
	return err
}

// Len returns the number of entries that the store holds as far as this process knows.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// Count returns the number of entries that the store holds under name as far as this process knows.
func (s *Store) Count(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.names[name])
}

// Reset forgets what the store was told to keep, so that it can be told again. It sends nothing.
func (s *Store) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.names)
	s.count = 0
}

// Adopt accounts for the borrowed descriptor fd that systemd passed at start under name and therefore holds already.
// It sends nothing.
func (s *Store) Adopt(name string, fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.account(name, cookie(fd))
}

// Add asks systemd to keep a duplicate of the borrowed descriptor fd under name, beside what it may hold under that
// name. With pollable, systemd drops the entry by itself when the descriptor reports EPOLLHUP or EPOLLERR: right for
// listening sockets; pidfds, bundles and connections want false. [ErrFull] and [ErrDuplicate] are found without
// asking systemd.
func (s *Store) Add(name string, fd int, pollable bool) error {
	if err := ValidName(name); err != nil {
		return fmt.Errorf("store descriptor: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.max > 0 && s.count >= s.max {
		return fmt.Errorf("store descriptor %s as entry %d of %d: %w", name, s.count+1, s.max, ErrFull)
	}
	c := cookie(fd)
	if stored, ok := s.find(c); ok {
		return fmt.Errorf("store descriptor %s, stored as %s: %w", name, stored, ErrDuplicate)
	}
	message := "FDSTORE=1\nFDNAME=" + name + "\n"
	if !pollable {
		message += "FDPOLL=0\n"
	}
	if err := s.send(message, fd); err != nil {
		return fmt.Errorf("store descriptor %s: %w", name, err)
	}
	s.account(name, c)
	return nil
}

// Remove asks systemd to drop everything it keeps under name. PID 1 closes the descriptors in a process of its own,
// so that for a moment after a [Store.Barrier] the address of a removed socket may still be in use.
func (s *Store) Remove(name string) error {
	if err := ValidName(name); err != nil {
		return fmt.Errorf("remove stored descriptor: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.send("FDSTOREREMOVE=1\nFDNAME=" + name + "\n"); err != nil {
		return fmt.Errorf("remove stored descriptor %s: %w", name, err)
	}
	s.count -= len(s.names[name])
	delete(s.names, name)
	return nil
}

func (s *Store) account(name string, cookie uint64) {
	s.names[name] = append(s.names[name], cookie)
	s.count++
}

func (s *Store) find(cookie uint64) (name string, ok bool) {
	if cookie == 0 {
		return "", false
	}
	for name, cookies := range s.names {
		for _, c := range cookies {
			if c == cookie {
				return name, true
			}
		}
	}
	return "", false
}

// cookie is 0 for what is no socket: other descriptors of one file are told apart by systemd, not by us.
func cookie(fd int) uint64 {
	c, err := sys.Cookie(fd)
	if err != nil {
		return 0
	}
	return c
}
