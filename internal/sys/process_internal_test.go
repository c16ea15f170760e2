package sys

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// Whatever a zombie is called, and whatever stands in the place of the files, the status is the kernel's.
func FuzzParseProcess(f *testing.F) {
	f.Add("sleep", 9, "pos:\t0\nflags:\t02000002\nPid:\t4711\nNSpid:\t4711\t3\n")
	f.Add("a) Z 0 0", 0x0700, "Pid:\t-1\n")
	f.Add("\n(", 0, "Pid: x")
	f.Add("", 0x7f, "")
	f.Fuzz(func(t *testing.T, comm string, status int, info string) {
		status &= 0xffff
		stat := fmt.Sprintf("4711 (%s) Z 1%s %d\n", comm, strings.Repeat(" 0", 47), status)
		if got, want := parseZombie(stat), exitFromStatus(status); got != want {
			t.Errorf("%q: %+v, want %+v", stat, got, want)
		}
		if ws := syscall.WaitStatus(status); ws.Exited() && parseZombie(stat) != (Exit{Known: true, Code: status >> 8}) {
			t.Errorf("status %#x: %+v", status, parseZombie(stat))
		}
		if e := parseZombie(info); e.Known && !strings.Contains(info, "Z") {
			t.Errorf("%q: %+v", info, e)
		}
		if pid, err := parsePidfdInfo(info); (pid > 0) != (err == nil) {
			t.Errorf("%q: %d, %v", info, pid, err)
		}
	})
}
