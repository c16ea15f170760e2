package fdstoretest

import (
	"slices"
	"strings"

	"github.com/8265a91a/supervisor/internal/sys"
)

// maxMessage is systemd's NOTIFY_BUFFER_MAX.
const maxMessage = 4096

// handle takes ownership of the descriptors of received.
func (m *Manager) handle(payload []byte, received sys.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(payload) > maxMessage {
		sys.CloseAll(received.FDs)
		return
	}
	// Closing the barrier's descriptor and dropping what did not go into the store is one and the same.
	defer sys.CloseAll(received.FDs)
	msg := Message{FDs: len(received.FDs)}
	if received.Cred != nil {
		msg.PID = received.Cred.PID
	}
	for line := range strings.SplitSeq(string(payload), "\n") {
		if line != "" {
			msg.Lines = append(msg.Lines, strings.ReplaceAll(line, `\`, ""))
		}
	}
	m.dropHungUp()
	switch {
	case msg.Has("FDSTOREREMOVE=1"):
		if name, ok := msg.value("FDNAME"); ok && validName(name) {
			m.drop(func(e Entry) bool { return e.Name == name })
		}
	case msg.Has("FDSTORE=1"):
		name, ok := msg.value("FDNAME")
		if !ok || !validName(name) {
			name = "stored"
		}
		for _, fd := range received.FDs {
			m.add(name, fd, !msg.Has("FDPOLL=0"))
		}
	}
	m.publish()
	m.messages = append(m.messages, msg)
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m Message) value(key string) (string, bool) {
	for _, line := range m.Lines {
		if v, ok := strings.CutPrefix(line, key+"="); ok {
			return v, true
		}
	}
	return "", false
}

// add stores a duplicate of fd, which it borrows.
func (m *Manager) add(name string, fd *sys.FD, pollable bool) {
	if len(m.entries) >= m.max {
		return
	}
	for _, e := range m.entries {
		if same, err := sys.SameDescription(e.FD.Num(), fd.Num()); err == nil && same {
			return
		}
	}
	dup, err := fd.Dup()
	if err != nil {
		return
	}
	m.entries = append(m.entries, Entry{Name: name, FD: dup, Pollable: pollable})
}

func (m *Manager) dropHungUp() {
	m.drop(func(e Entry) bool {
		hungUp, err := sys.HungUp(e.FD.Num())
		return e.Pollable && err == nil && hungUp
	})
}

func (m *Manager) drop(which func(Entry) bool) {
	m.entries = slices.DeleteFunc(m.entries, func(e Entry) bool {
		if !which(e) {
			return false
		}
		e.FD.Close()
		return true
	})
}

func validName(name string) bool {
	for i := range len(name) {
		if c := name[i]; c < 0x20 || c > 0x7e || c == ':' {
			return false
		}
	}
	return len(name) <= 255
}
