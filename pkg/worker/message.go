package worker

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Message is one datagram of the sd_notify(3) protocol. Of a field given twice the first holds, as with systemd.
type Message struct {
	// PID and UID are the sender's, as the kernel vouches for them.
	PID int
	UID uint32

	Ready, Stopping, Reloading bool
	// Monotonic is MONOTONIC_USEC, the CLOCK_MONOTONIC time at which a reload began; 0 if not given.
	Monotonic time.Duration
	// Status is STATUS=, without control characters; HasStatus tells an empty status from none.
	Status    string
	HasStatus bool
	// MainPID is MAINPID, 0 if not given.
	MainPID int
	// Errno is ERRNO, 0 if not given.
	Errno int
	// Watchdog is WATCHDOG: "1" for a sign of life, "trigger" for a failure, or empty.
	Watchdog string
	// WatchdogInterval is WATCHDOG_USEC, the interval that the worker asks for; 0 if not given.
	WatchdogInterval time.Duration
	// ExtendTimeout is EXTEND_TIMEOUT_USEC; 0 if not given.
	ExtendTimeout time.Duration

	FDStore, FDStoreRemove, Barrier bool
	// FDName is FDNAME, empty if not given or impossible.
	FDName string
	// FDPoll is false for FDPOLL=0.
	FDPoll bool
	// FDs are the descriptors sent with FDSTORE=1; whoever gets the message owns them.
	FDs []*FD

	// Unknown are the keys that mean nothing here, such as X_COMPANY_STATE.
	Unknown []string
}

// ParseNotify reads the text of a datagram. A line that cannot be understood is left out and named in the error;
// what the other lines say holds all the same.
func ParseNotify(data []byte) (Message, error) {
	m := Message{FDPoll: true}
	if len(data) == 0 {
		return m, errors.New("notify message is empty")
	}
	var errs []error
	seen := map[string]bool{}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(data), "\n"), "\n") {
		key, value, ok := strings.Cut(line, "=")
		if !ok || key == "" {
			if line != "" {
				errs = append(errs, fmt.Errorf("notify message has the line %.40q, which is no assignment", line))
			}
			continue
		}
		if seen[key] {
			continue
		}
		seen[key] = true
		if err := m.set(key, value); err != nil {
			errs = append(errs, fmt.Errorf("notify message has %.20s=%.40q: %w", key, value, err))
		}
	}
	return m, errors.Join(errs...)
}

func (m *Message) set(key, value string) (err error) {
	switch key {
	case "READY":
		m.Ready, err = one(value)
	case "STOPPING":
		m.Stopping, err = one(value)
	case "RELOADING":
		m.Reloading, err = one(value)
	case "FDSTORE":
		m.FDStore, err = one(value)
	case "FDSTOREREMOVE":
		m.FDStoreRemove, err = one(value)
	case "BARRIER":
		m.Barrier, err = one(value)
	case "MONOTONIC_USEC":
		m.Monotonic, err = microseconds(value)
	case "WATCHDOG_USEC":
		m.WatchdogInterval, err = microseconds(value)
	case "EXTEND_TIMEOUT_USEC":
		m.ExtendTimeout, err = microseconds(value)
	case "MAINPID":
		m.MainPID, err = number(value, 1)
	case "ERRNO":
		m.Errno, err = number(value, 0)
	case "STATUS":
		m.Status, m.HasStatus, err = statusText(value)
	case "WATCHDOG":
		if value != "1" && value != "trigger" {
			return errors.New(`neither "1" nor "trigger"`)
		}
		m.Watchdog = value
	case "FDNAME":
		if !validFDName(value) {
			return errors.New("a name has up to 255 printable ASCII characters and no colon")
		}
		m.FDName = value
	case "FDPOLL":
		m.FDPoll = value != "0"
	default:
		m.Unknown = append(m.Unknown, key)
	}
	return err
}

// one accepts "0" silently: some servers say READY=0, which means nothing to systemd either.
func one(value string) (bool, error) {
	if value == "1" || value == "0" {
		return value == "1", nil
	}
	return false, errors.New(`not "1"`)
}

func microseconds(value string) (time.Duration, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 0 || n > int64(1<<63-1)/int64(time.Microsecond) {
		return 0, errors.New("no number of microseconds")
	}
	return time.Duration(n) * time.Microsecond, nil
}

func number(value string, least int) (int, error) {
	n, err := strconv.ParseInt(value, 10, 32)
	if err != nil || int(n) < least {
		return 0, errors.New("not a number in range")
	}
	return int(n), nil
}

// statusText makes a status fit to be printed on a terminal.
func statusText(value string) (string, bool, error) {
	if !utf8.ValidString(value) {
		return "", false, errors.New("not UTF-8")
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, value), true, nil
}

// validFDName is systemd's fdname_is_valid().
func validFDName(s string) bool {
	if len(s) > 255 {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 127 || s[i] == ':' {
			return false
		}
	}
	return true
}
