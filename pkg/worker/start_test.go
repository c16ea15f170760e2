package worker

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A child that cannot be watched does not stay behind.
func TestStartedWithoutPidfd(t *testing.T) {
	pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "60"}, &syscall.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := startedProcess(pid, -1); err == nil || !strings.Contains(err.Error(), "no pidfd") {
		t.Error(err)
	}
	if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); !os.IsNotExist(err) {
		t.Errorf("the child is still there: %v", err)
	}
}
