package getsocks

import "testing"

func TestFindPID(t *testing.T) {
	for answer, want := range map[string]int{
		"Name: HAProxy\nVersion: 2.6.12\nPid: 4711\nUptime: 0d\n": 4711,
		"Pid: 1":                       1,
		"":                             0,
		"Name: HAProxy\nPid:\n":        0,
		"Pid: -3\n":                    0,
		"Pid: 99999999999999999999\n":  0,
		"Relative_Pid: 7\n":            0,
		"Unknown command, but Pid: 5 ": 0,
	} {
		pid, err := findPID(answer)
		if pid != want || (err == nil) != (want > 0) {
			t.Errorf("findPID(%q) = %d, %v, want %d", answer, pid, err, want)
		}
	}
}
