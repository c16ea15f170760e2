// Package fdstoretest is PID 1 for tests: a notify socket with the rules of
// systemd's FD store, and what the next start of the service would receive.
//
// The rules are those measured on systemd 252, 257 and 262: a message of more
// than 4096 bytes is dropped whole; an invalid FDNAME= becomes "stored"; the
// store is checked for room before it is checked for duplicates; a duplicate, by
// open file description, is dropped silently and keeps its old name; a backslash
// is eaten; all descriptors of a message get one name; entries that report
// EPOLLHUP or EPOLLERR are dropped unless they were stored with FDPOLL=0;
// FDSTOREREMOVE=1 drops all entries of a name; stored descriptors are passed
// after those of the socket units, the newest first.
//
// [Exercise] plays the rules through and [Outcome] says what must come of it; the
// tests of this package run it against the Manager, and test/vm against systemd.
//
// What differs: the order of the stored ones never flips (systemd's does with
// each daemon-reload), a removed descriptor is closed at once (systemd does so a
// little later, in a process of its own), and what has hung up is dropped before
// the next message is looked at (systemd does so when no message waits, so that
// for a moment it still takes room).
package fdstoretest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/8265a91a/supervisor/internal/sys"
)

// Message is one datagram that was received.
type Message struct {
	// PID is the sender's.
	PID int
	// Lines are the non-empty ones.
	Lines []string
	// FDs is the number of descriptors that came with it.
	FDs int
}

// Has reports whether line is one of the message's.
func (m Message) Has(line string) bool { return slices.Contains(m.Lines, line) }

// Entry is one stored descriptor, or one of a socket unit.
type Entry struct {
	Name string
	// FD is borrowed from the Manager, which may drop it with the next message.
	FD       *sys.FD
	Pollable bool
}

// Manager is the service manager of one service.
type Manager struct {
	// Socket is the value for NOTIFY_SOCKET.
	Socket string

	conn *net.UnixConn
	done chan struct{}

	mu       sync.Mutex
	max      int
	entries  []Entry
	units    []Entry
	messages []Message
	changed  chan struct{} // closed and replaced with each message
}

// DefaultMax is the FileDescriptorStoreMax= of a new Manager.
const DefaultMax = 512

// New starts a manager that ends, and drops all it keeps, with the test.
func New(t testing.TB) *Manager {
	t.Helper()
	// t.TempDir is too long for a socket's path when the test's name is long.
	dir, err := os.MkdirTemp("", "fdstore")
	if err != nil {
		t.Fatal(err)
	}
	m := &Manager{Socket: filepath.Join(dir, "notify"), max: DefaultMax, done: make(chan struct{}), changed: make(chan struct{})}
	m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.Socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := sys.PassCredentials(m.conn); err != nil {
		t.Fatal(err)
	}
	go m.receive(t)
	t.Cleanup(func() {
		m.conn.Close()
		<-m.done
		m.Stop()
		for _, u := range m.units {
			u.FD.Close()
		}
		os.RemoveAll(dir)
	})
	return m
}

// publish writes how many descriptors are stored, and how many would be, where [Manager.Use] finds it: the properties
// NFileDescriptorStore and FileDescriptorStoreMax.
func (m *Manager) publish() {
	file := m.Socket + ".use"
	if err := os.WriteFile(file+".new", fmt.Appendf(nil, "%d %d", len(m.entries), m.max), 0o600); err == nil {
		os.Rename(file+".new", file)
	}
}

// Use reads what the manager behind the notify socket says of its store. It may be called in another process.
func Use(socket string) (count, limit int, ok bool) {
	data, err := os.ReadFile(socket + ".use")
	if err == nil {
		_, err = fmt.Sscan(string(data), &count, &limit)
	}
	return count, limit, err == nil
}

// Pause has the manager read nothing until resume is called.
func (m *Manager) Pause() (resume func()) {
	m.mu.Lock()
	return m.mu.Unlock
}

// SetMax is FileDescriptorStoreMax=. Lowering it drops the oldest entries, as daemon-reload does.
func (m *Manager) SetMax(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.max = n
	for len(m.entries) > n {
		m.entries[0].FD.Close()
		m.entries = m.entries[1:]
	}
	m.publish()
}

// AddSocketUnit duplicates the borrowed descriptor fd as that of a .socket unit with FileDescriptorName=name.
func (m *Manager) AddSocketUnit(t testing.TB, name string, fd int) {
	t.Helper()
	dup, err := sys.DupNum(fd)
	if err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.units = append(m.units, Entry{Name: name, FD: dup})
}

// Stop is what `systemctl stop` does with FileDescriptorStorePreserve=restart: it drops the whole store.
func (m *Manager) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entries {
		e.FD.Close()
	}
	m.entries = nil
	m.publish()
}

// Entries returns what is stored, the oldest first.
func (m *Manager) Entries() []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropHungUp()
	return slices.Clone(m.entries)
}

// Names returns the sorted names of what is stored.
func (m *Manager) Names() []string {
	var names []string
	for _, e := range m.Entries() {
		names = append(names, e.Name)
	}
	slices.Sort(names)
	return names
}

// Messages returns all that were received, in order.
func (m *Manager) Messages() []Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.messages)
}

// Environment returns what the next start of the service gets beside its own environment, and the descriptors that
// must become 3 and on in it (files[0] is to be 3). They are borrowed. LISTEN_PID is missing because only the child
// knows it: start it through the exec shim.
func (m *Manager) Environment() (env []string, files []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropHungUp()
	var names []string
	for _, u := range m.units {
		names, files = append(names, u.Name), append(files, u.FD.Num())
	}
	for _, e := range slices.Backward(m.entries) {
		names, files = append(names, e.Name), append(files, e.FD.Num())
	}
	env = []string{"NOTIFY_SOCKET=" + m.Socket}
	if m.max > 0 {
		env = append(env, "FDSTORE="+strconv.Itoa(m.max))
	}
	if len(files) > 0 {
		env = append(env, "LISTEN_FDS="+strconv.Itoa(len(files)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	return env, files
}

// WaitReady returns when a READY=1 has been received since the manager started, or since the last call.
func (m *Manager) WaitReady(ctx context.Context) error {
	if err := m.Wait(ctx, func(msg Message) bool { return msg.Has("READY=1") }); err != nil {
		return fmt.Errorf("wait for READY=1: %w", err)
	}
	return nil
}

// Wait returns when a message that match accepts has been received, and forgets all messages up to that one.
func (m *Manager) Wait(ctx context.Context, match func(Message) bool) error {
	for {
		m.mu.Lock()
		i := slices.IndexFunc(m.messages, match)
		if i >= 0 {
			m.messages = slices.Delete(m.messages, 0, i+1)
		}
		changed := m.changed
		m.mu.Unlock()
		if i >= 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *Manager) receive(t testing.TB) {
	defer close(m.done)
	buf := make([]byte, maxMessage+1)
	for {
		msg, err := sys.ReadMessage(m.conn, buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			t.Errorf("receive notification: %v", err)
			continue
		}
		m.handle(buf[:msg.N], msg)
	}
}
