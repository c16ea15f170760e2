package activation

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/8265a91a/supervisor/internal/sys"
)

// FD owns one descriptor.
type FD = sys.FD

// Kind is what a descriptor refers to.
type Kind = sys.Kind

// The kinds of descriptors.
const (
	KindOther  = sys.KindOther
	KindSocket = sys.KindSocket
	KindPidfd  = sys.KindPidfd
	KindMemfd  = sys.KindMemfd
)

// Unknown is the name of a descriptor that was passed without one that can be trusted, as in libsystemd.
const Unknown = "unknown"

// HandoverVariable names the bundle of descriptors, made by [Handover], that this program passes to itself over an execve. Its
// value is a descriptor number.
const HandoverVariable = "SUPERVISOR_HANDOVER"

// ErrLost marks an error of [Take] by which something that was announced to this process is missing.
var ErrLost = errors.New("something that was passed is missing")

// lostError is [ErrLost] without its words.
type lostError struct{ error }

func (lostError) Is(target error) bool { return target == ErrLost }

func (e lostError) Unwrap() error { return e.error }

func lost(format string, args ...any) error { return lostError{fmt.Errorf(format, args...)} }

const (
	firstListenFD = 3
	// maxListenFDs is the kernel's default ceiling for descriptor numbers (fs.nr_open): a larger LISTEN_FDS is a lie.
	maxListenFDs = 1 << 20
)

// Descriptor is one descriptor that was passed to this process.
type Descriptor struct {
	Name string
	// Meta is what [Handover] was given beside the name; systemd passes nothing here.
	Meta string
	FD   *FD
	Kind Kind
}

// Result is what was passed to this process. The caller owns and closes the descriptors.
type Result struct {
	// Descriptors are in the order in which they were passed, those of a handover last.
	Descriptors []Descriptor
	// StoreMax is $FDSTORE, the number of entries systemd's FD store may hold; 0 when it is not known (systemd
	// before 254) or there is no store.
	StoreMax int
	// Handover says that an earlier execve of this process left a bundle, with or without anything in it.
	Handover bool
}

// Take takes ownership of all descriptors that were passed to this process, makes them close-on-exec, and removes the
// variables that announced them from the environment, so that no child takes them for its own. Each impossible thing
// is one error; whatever was really passed is returned all the same. An error that is [ErrLost] means that something is
// missing; the others are warnings, such as a LISTEN_PID from which follows that nothing was passed to this process. Call it once, before anything opens descriptors
// that it does not make close-on-exec.
func Take() (Result, []error) {
	return environment{
		lookup:  os.LookupEnv,
		unset:   os.Unsetenv,
		pid:     os.Getpid(),
		pidfdID: ownPidfdID,
		first:   firstListenFD,
	}.take()
}

// environment is the process as Take sees it.
type environment struct {
	lookup  func(key string) (string, bool)
	unset   func(key string) error
	pid     int
	pidfdID func() (uint64, error)
	first   int
}

func ownPidfdID() (uint64, error) {
	pidfd, err := sys.PidfdOpen(os.Getpid())
	if err != nil {
		return 0, err
	}
	defer pidfd.Close()
	return sys.Inode(pidfd.Num())
}

func (e environment) take() (Result, []error) {
	var r Result
	descriptors, errs := e.listenFDs()
	r.Descriptors = descriptors
	if v, ok := e.lookup("FDSTORE"); ok {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			errs = append(errs, fmt.Errorf("FDSTORE=%q is not a number of entries", v))
		} else {
			r.StoreMax = n
		}
	}
	if v, ok := e.lookup(HandoverVariable); ok {
		r.Handover = true
		descriptors, err := takeHandover(v)
		r.Descriptors = append(r.Descriptors, descriptors...)
		if err != nil {
			errs = append(errs, err)
		}
	}
	for _, key := range []string{
		"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "FDSTORE", "MAINPID", "MAINPIDFDID", HandoverVariable,
	} {
		if err := e.unset(key); err != nil {
			errs = append(errs, err)
		}
	}
	return r, errs
}

func (e environment) listenFDs() ([]Descriptor, []error) {
	value, ok := e.lookup("LISTEN_FDS")
	if !ok {
		return nil, nil
	}
	if err := e.checkPID(); err != nil {
		return nil, []error{err}
	}
	count, err := strconv.Atoi(value)
	if err != nil || count < 0 {
		return nil, []error{lost("LISTEN_FDS=%q is not a number of descriptors: none is taken", value)}
	}
	var errs []error
	if err := e.checkPidfdID(); err != nil {
		errs = append(errs, err)
	}
	names, err := e.names(count)
	if err != nil {
		errs = append(errs, err)
	}
	descriptors, more := takeRange(e.first, count, names)
	return descriptors, append(errs, more...)
}

// checkPID refuses descriptors that were meant for another process, from which the environment was inherited.
func (e environment) checkPID() error {
	value, ok := e.lookup("LISTEN_PID")
	if !ok {
		return errors.New("LISTEN_FDS is set without LISTEN_PID: no descriptor is taken")
	}
	pid, err := strconv.Atoi(value)
	if err != nil || pid <= 0 {
		return lost("LISTEN_PID=%q is not a process id: no descriptor is taken", value)
	}
	if pid != e.pid {
		return fmt.Errorf("LISTEN_PID=%d is not this process, %d: no descriptor is taken", pid, e.pid)
	}
	return nil
}

// checkPidfdID only reports: with the right LISTEN_PID, losing the sockets would be worse than a stale variable.
func (e environment) checkPidfdID() error {
	value, ok := e.lookup("LISTEN_PIDFDID")
	if !ok {
		return nil
	}
	id, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return fmt.Errorf("LISTEN_PIDFDID=%q is not a number; LISTEN_PID is right, so the descriptors are taken", value)
	}
	own, err := e.pidfdID()
	if err != nil {
		return fmt.Errorf("check LISTEN_PIDFDID: %w", err)
	}
	if id != own {
		return fmt.Errorf("LISTEN_PIDFDID=%d is not this process, %d; LISTEN_PID is right, so the descriptors are taken", id, own)
	}
	return nil
}

// takeRange takes what was passed of the descriptors first to first+count-1. names has count elements or is nil.
func takeRange(first, count int, names []string) ([]Descriptor, []error) {
	var descriptors []Descriptor
	var errs []error
	var missing []int
	for i := range min(count, maxListenFDs) {
		n := first + i
		cloexec, err := sys.CloseOnExec(n)
		if err != nil {
			missing = append(missing, n)
			continue
		}
		if cloexec {
			errs = append(errs, lost("descriptor %d of LISTEN_FDS=%d is close-on-exec, so it was not passed: left alone", n, count))
			continue
		}
		name := Unknown
		if names != nil {
			name = names[i]
		}
		d, err := own(n, name)
		if err != nil {
			errs = append(errs, err)
		}
		descriptors = append(descriptors, d)
	}
	if len(missing) > 0 || count > maxListenFDs {
		errs = append(errs, missingError(count, missing))
	}
	return descriptors, errs
}

// own wraps a descriptor that is known to be open and passed; an error leaves it usable.
func own(n int, name string) (Descriptor, error) {
	d := Descriptor{Name: name, FD: sys.NewFD(n)}
	if err := sys.SetCloseOnExec(n); err != nil {
		return d, fmt.Errorf("descriptor %d (%s): %w", n, name, err)
	}
	kind, err := sys.KindOf(n)
	if err != nil {
		return d, fmt.Errorf("descriptor %d (%s): %w", n, name, err)
	}
	d.Kind = kind
	return d, nil
}

func missingError(count int, missing []int) error {
	const shown = 8
	var list []string
	for _, n := range missing[:min(len(missing), shown)] {
		list = append(list, strconv.Itoa(n))
	}
	text := strings.Join(list, ", ")
	if more := len(missing) + max(count-maxListenFDs, 0) - len(list); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return lost("LISTEN_FDS=%d, but not open: %s: %w", count, text, syscall.EBADF)
}
