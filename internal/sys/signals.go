package sys

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// SignalName returns the name of sig, such as "SIGTERM", or "signal 40" for one without a name.
func SignalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return "signal " + strconv.Itoa(int(sig))
}
