package unit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Processes returns the ids of all processes in this unit's control group and the groups below it, but this one's.
// It is empty outside of a service unit.
func Processes() ([]int, error) {
	own := ownGroup()
	if Own() == "" {
		return nil, nil
	}
	root := "/sys/fs/cgroup"
	if own.marker == legacy {
		root = "/sys/fs/cgroup/systemd"
	}
	var pids []int
	err := filepath.WalkDir(filepath.Join(root, own.path), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a group below that has just ended
		}
		if err != nil || d.Name() != "cgroup.procs" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for field := range strings.FieldsSeq(string(data)) {
			// 0 is a process of another pid namespace.
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 && pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list processes of the control group: %w", err)
	}
	return pids, nil
}

// Contains reports whether the process pid is in this unit's control group or one below it.
func Contains(pid int) bool {
	own := ownGroup()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil || Own() == "" {
		return false
	}
	for _, g := range groups(string(data)) {
		if g.marker == own.marker {
			return g.path == own.path || strings.HasPrefix(g.path, own.path+"/")
		}
	}
	return false
}
