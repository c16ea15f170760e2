//go:build fault

// Package fault names the points at which a test may kill, delay or starve the
// daemon. This is the build for tests (tag "fault"): the file named by
// SUPERVISOR_FAULT_FILE, when it exists, holds "POINT: ACTION", or
// "POINT#N: ACTION" for the N-th time from now on; when POINT is reached the
// file is removed and ACTION is done: "kill" (SIGKILL to this process), "delay
// DURATION", or "exec COMMAND…" (run to its end by /bin/sh, with SUPERVISOR_PID
// set, to kill somebody else or fill the store). While a file of that name with
// ".seen" added exists, every point that is reached adds a line with its name.
package fault

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

var (
	mu   sync.Mutex
	seen []string
)

// Point does what the fault file asks for at this point, once.
func Point(name string) {
	if action, ok := due(name); ok {
		perform(action)
	}
}

// due notes that the point was reached and returns what is to be done there now.
func due(name string) (action string, ok bool) {
	mu.Lock()
	defer mu.Unlock()
	if !slices.Contains(seen, name) {
		seen = append(seen, name)
	}
	path := os.Getenv("SUPERVISOR_FAULT_FILE")
	if path == "" {
		return "", false
	}
	if f, err := os.OpenFile(path+".seen", os.O_WRONLY|os.O_APPEND, 0); err == nil {
		fmt.Fprintln(f, name)
		f.Close()
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", false
	}
	point, action, _ := strings.Cut(strings.TrimSpace(string(data)), ": ")
	point, times, _ := strings.Cut(point, "#")
	if point != name {
		return "", false
	}
	if n, err := strconv.Atoi(times); err == nil && n > 1 {
		if f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0); err == nil { // not created: the test may have removed it
			fmt.Fprintf(f, "%s#%d: %s\n", point, n-1, action)
			f.Close()
		}
		return "", false
	}
	return action, os.Remove(path) == nil // whoever removes it, this or the test, knows whether it is done
}

func perform(action string) {
	verb, argument, _ := strings.Cut(action, " ")
	switch verb {
	case "kill":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "delay":
		if d, err := time.ParseDuration(argument); err == nil {
			time.Sleep(d)
		}
	case "exec":
		cmd := exec.Command("/bin/sh", "-c", argument)
		cmd.Env = append(os.Environ(), "SUPERVISOR_PID="+strconv.Itoa(os.Getpid()))
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.Run()
	default:
		panic("fault: unknown action " + action)
	}
}

// Names returns the points that this process has passed, in the order of their first time.
func Names() []string {
	mu.Lock()
	defer mu.Unlock()
	return slices.Clone(seen)
}
