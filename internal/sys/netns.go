package sys

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// OpenNetns opens the network namespace that path (such as /proc/PID/ns/net) refers to. The caller closes it.
func OpenNetns(path string) (*FD, error) {
	n, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return NewFD(n), nil
}

// InNetns runs call on a thread that is in the network namespace behind the borrowed ns, and brings the thread back.
// Sockets keep the namespace they were made in, so what call opens can be used afterwards from anywhere.
// It needs CAP_SYS_ADMIN over both namespaces. Goroutines that call starts are not in the namespace.
func InNetns(ns *FD, call func() error) error {
	home, err := OpenNetns("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	runtime.LockOSThread()
	if err := unix.Setns(ns.Num(), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	callErr := call()
	if err := unix.Setns(home.Num(), unix.CLONE_NEWNET); err != nil {
		// The thread stays locked, so the runtime ends it with its goroutine and nothing else runs in the wrong place.
		return fmt.Errorf("leave network namespace: %w", err)
	}
	runtime.UnlockOSThread()
	return callErr
}
