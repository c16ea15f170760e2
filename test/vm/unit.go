package vm

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Systemctl runs systemctl, which must succeed.
func (m *Machine) Systemctl(args ...string) string {
	m.t.Helper()
	return m.Run(append([]string{"systemctl"}, args...)...)
}

// TrySystemctl runs systemctl and returns what it did.
func (m *Machine) TrySystemctl(args ...string) Result {
	m.t.Helper()
	return m.Try(append([]string{"systemctl"}, args...)...)
}

// Property returns a property of a unit as systemctl show prints it.
func (m *Machine) Property(unit, name string) string {
	m.t.Helper()
	return m.Systemctl("show", "--value", "-p", name, unit)
}

// MainPID is the main process of a service as the container numbers it, 0 when there is none.
func (m *Machine) MainPID(unit string) int {
	m.t.Helper()
	pid, err := strconv.Atoi(m.Property(unit, "MainPID"))
	if err != nil {
		m.t.Fatal(err)
	}
	return pid
}

// PIDs lists the processes in the control group of a unit, sorted; none when the group is gone.
func (m *Machine) PIDs(unit string) []int {
	m.t.Helper()
	group := m.Property(unit, "ControlGroup")
	if group == "" {
		return nil
	}
	r := m.Try("sh", "-c", "find /sys/fs/cgroup"+shellQuote(group)+" -name cgroup.procs -exec cat {} + 2>/dev/null")
	var pids []int
	for _, f := range strings.Fields(r.Stdout) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			m.t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids
}

// Children lists the processes of a unit but its main process: the workers.
func (m *Machine) Children(unit string) []int {
	m.t.Helper()
	main := m.MainPID(unit)
	return slices.DeleteFunc(m.PIDs(unit), func(pid int) bool { return pid == main })
}

// Kill sends a signal to a process of the container.
func (m *Machine) Kill(pid int, sig syscall.Signal) {
	m.t.Helper()
	m.Run("kill", "-"+strconv.Itoa(int(sig)), strconv.Itoa(pid))
}

// Alive reports whether a process of the container exists and is no zombie.
func (m *Machine) Alive(pid int) bool {
	r := m.try(nil, "sh", "-c", "grep -q '^State:.[^ZX]' /proc/"+strconv.Itoa(pid)+"/status")
	return r.Code == 0
}

// Journal returns the messages of a unit and what systemd says about it, oldest first.
func (m *Machine) Journal(unit string) string {
	m.t.Helper()
	m.Try("journalctl", "--sync")
	return m.Try("journalctl", "-q", "--no-pager", "-o", "short-precise", "-u", unit).Stdout
}

// Cursor marks now in the journal, for [Machine.JournalAfter].
func (m *Machine) Cursor() string {
	m.t.Helper()
	m.Try("journalctl", "--sync")
	for line := range strings.Lines(m.Run("journalctl", "-q", "-n1", "--show-cursor", "-o", "cat")) {
		if cursor, ok := strings.CutPrefix(strings.TrimSpace(line), "-- cursor: "); ok {
			return cursor
		}
	}
	m.t.Fatal("the journal shows no cursor")
	return ""
}

// JournalAfter returns the messages of a unit since cursor, without time and origin.
func (m *Machine) JournalAfter(unit, cursor string) string {
	m.t.Helper()
	m.Try("journalctl", "--sync")
	return m.Try("journalctl", "-q", "--no-pager", "-o", "cat", "--after-cursor", cursor, "-u", unit).Stdout
}

// StoredFD is an entry of a unit's FD store.
type StoredFD struct {
	Name  string `json:"fdname"`
	Mode  uint32 `json:"type"`
	Inode uint64 `json:"inode"`
	Path  string `json:"path"`
}

// FDStoreShown reports whether this systemd shows the store's entries (254 and later).
func (m *Machine) FDStoreShown() bool { return m.Systemd >= 254 }

// FDStore lists the entries of a unit's FD store, sorted by name. It needs [Machine.FDStoreShown].
func (m *Machine) FDStore(unit string) []StoredFD {
	m.t.Helper()
	var entries []StoredFD
	m.Eventually(10*time.Second, func() string { // systemd may be executing itself again
		r := m.Try("systemd-analyze", "fdstore", "--json=short", unit)
		if r.Code != 0 {
			return r.Stderr
		}
		if err := json.Unmarshal([]byte(r.Stdout), &entries); err != nil {
			return err.Error()
		}
		return ""
	})
	slices.SortFunc(entries, func(a, b StoredFD) int { return strings.Compare(a.Name, b.Name) })
	return entries
}

// FDStoreSize is the number of entries in a unit's FD store, on every systemd.
func (m *Machine) FDStoreSize(unit string) int {
	m.t.Helper()
	n, err := strconv.Atoi(m.Property(unit, "NFileDescriptorStore"))
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
