package getsocks

import (
	"strconv"
	"testing"
)

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

// What comes first counts, and an error is no process.
func FuzzFindPID(f *testing.F) {
	for _, seed := range []string{"Name: HAProxy\nVersion: 2.6.12\nPid: 4711\nUptime: 0d\n", "Pid:", "Pid: -3\n", "Pid: +7\r\n", "Relative_Pid: 7\n", "Permission denied\n"} {
		f.Add(seed, 4711)
	}
	f.Fuzz(func(t *testing.T, answer string, own int) {
		if pid, err := findPID(answer); (pid > 0) != (err == nil) {
			t.Errorf("%q: %d, %v", answer, pid, err)
		}
		if pid, err := findPID("Pid: " + strconv.Itoa(own) + "\n" + answer); (own > 0) != (err == nil) || err == nil && pid != own {
			t.Errorf("%d, then %q: %d, %v", own, answer, pid, err)
		}
	})
}
