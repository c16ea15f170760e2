package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/dbus"

	"github.com/8265a91a/supervisor/internal/unit"
	"github.com/8265a91a/supervisor/pkg/fdstore"
)

// manager is the service manager, systemd, as seen from here: messages to it, and the few questions it is asked.
type manager struct {
	store *fdstore.Store // nil without systemd
	unit  string
	log   *slog.Logger

	// tellStore answers in systemd's place in tests.
	tellStore func() (storeUse, bool)

	busy    atomic.Bool // the last message found the queue full
	mu      sync.Mutex
	isReady bool
}

// askTimeout bounds a question to systemd: it must never hold up a reload for long.
const askTimeout = 2 * time.Second

// jobPatience is how long systemd is asked again and again whether this is a stop or a restart: a restart that is taken for
// a stop closes the sockets.
const jobPatience = 5 * time.Second

// sendTimeout bounds a message to systemd, which the loop sends: while it waits, it does nothing else.
const sendTimeout = 2 * time.Second

func newManager(opts Options, log *slog.Logger) *manager {
	m := &manager{unit: unit.Own(), log: log, tellStore: opts.tellStore}
	store, err := fdstore.Open(os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		log.Warn("not started by systemd: the sockets and the worker do not survive the end of this supervisor")
		return m
	}
	store.SetTimeout(sendTimeout)
	m.store = store
	return m
}

// notify sends lines of the sd_notify protocol. systemd not listening is no reason to fail anything.
func (m *manager) notify(lines ...string) {
	if m.store == nil {
		return
	}
	send := m.store.Notify
	if m.busy.Load() { // it has been waited for: a daemon that waits each time does nothing else
		send = m.store.TryNotify
	}
	err := send(lines...)
	m.busy.Store(errors.Is(err, fdstore.ErrBusy))
	if err != nil {
		m.log.Warn("cannot notify systemd: " + err.Error())
	}
}

// insist sends a message that must not be lost: systemd ends a service that never says READY=1.
func (m *manager) insist(lines ...string) {
	if m.store == nil {
		return
	}
	err := m.store.Notify(lines...)
	if err == nil {
		return
	}
	m.log.Warn("cannot notify systemd: " + err.Error())
	if errors.Is(err, fdstore.ErrBusy) {
		time.AfterFunc(sendTimeout, func() { m.insist(lines...) })
	}
}

// maxStatus is how many bytes of text fit into a message that systemd accepts, which has 4096.
const maxStatus = 4096 - len("READY=1\nSTATUS=\n")

// status says what systemctl status shows.
func (m *manager) status(text string) { m.notify("STATUS=" + cut(text, maxStatus)) }

// cut shortens text to so many bytes, in whole characters.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}

// ready says READY=1 the first time, of which it tells, and what serves every time.
func (m *manager) ready(status string) (first bool) {
	m.mu.Lock()
	first = !m.isReady
	m.isReady = true
	m.mu.Unlock()
	if first {
		m.insist("READY=1", "STATUS="+cut(status, maxStatus))
	} else {
		m.status(status)
	}
	return first
}

// watchdogTicker ticks twice in the interval within which systemd wants to hear WATCHDOG=1, never without one.
func (m *manager) watchdogTicker() *time.Ticker {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval <= 0 {
		t := time.NewTicker(time.Hour)
		t.Stop()
		return t
	}
	return time.NewTicker(interval / 2)
}

// properties asks systemd for what it knows of this service. Without a bus, or without the right to use it, there is no
// answer. One about another main process is about another unit of this name: under systemd --user the system's own
// manager answers.
func (m *manager) properties(ctx context.Context) map[string]any {
	if m.unit == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := dbus.NewWithContext(ctx)
	if err != nil {
		return nil
	}
	defer conn.Close()
	list, err := conn.GetUnitTypePropertiesContext(ctx, m.unit, "Service")
	if err != nil || !isMain(list) {
		return nil
	}
	return list
}

func isMain(properties map[string]any) bool {
	pid, ok := number(properties, "MainPID")
	return ok && pid == uint64(os.Getpid())
}

// number returns a property that is one.
func number(properties map[string]any, name string) (uint64, bool) {
	switch n := properties[name].(type) {
	case uint32:
		return uint64(n), true
	case uint64:
		return n, true
	}
	return 0, false
}

// storeUse is how many descriptors systemd holds for this service, and how many it would (FileDescriptorStoreMax=).
type storeUse struct{ count, max int }

// askStore asks systemd.
func (m *manager) askStore(ctx context.Context) (storeUse, bool) {
	if m.tellStore != nil {
		return m.tellStore()
	}
	list := m.properties(ctx)
	count, ok := number(list, "NFileDescriptorStore")
	limit, _ := number(list, "FileDescriptorStoreMax")
	return storeUse{int(count), int(limit)}, ok
}

// stopTimeout is TimeoutStopSec= of the unit; 0 if there is none, or nobody tells.
func (m *manager) stopTimeout() time.Duration {
	usec, ok := number(m.properties(context.Background()), "TimeoutStopUSec")
	if !ok || usec > math.MaxInt64/1000 {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}

// storeOutlives tells whether the FD store outlives the stop that is under way: a soft-reboot, with
// FileDescriptorStorePreserve=yes (systemd 254).
func (m *manager) storeOutlives() bool {
	if preserve, _ := m.properties(context.Background())["FileDescriptorStorePreserve"].(string); preserve != "yes" {
		return false
	}
	kind, err := unit.JobType(context.Background(), "soft-reboot.target")
	return err == nil && kind == "start"
}

// jobType is the type of the job that systemd has for this service: "stop", "restart", …; empty if there is none,
// or nobody tells, as when the system goes down and the bus is gone.
func (m *manager) jobType() string {
	if m.unit == "" {
		return ""
	}
	kind, err := unit.JobType(context.Background(), m.unit)
	for end := time.Now().Add(jobPatience); err != nil && time.Now().Before(end); { // it may be in the middle of a daemon-reexec
		time.Sleep(100 * time.Millisecond)
		kind, err = unit.JobType(context.Background(), m.unit)
	}
	if err != nil {
		m.log.Warn("cannot ask systemd whether this is a stop or a restart, taken for a stop: " + err.Error())
	}
	return kind
}
