package vm

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Two containers in one control group would take each other's services for their own left-overs, so each gets a
// group of its own at the top of the unified hierarchy.
const groupPrefix = "supervisor-test-"

// newGroup makes the control group of a container that this process boots, and removes those of dead processes.
func newGroup(name string) (string, error) {
	unified, all := hierarchies()
	if unified == "" {
		return "", fmt.Errorf("no cgroup2 hierarchy is mounted: systemd cannot run in a container here")
	}
	for _, top := range all {
		old, _ := filepath.Glob(filepath.Join(top, groupPrefix+"*"))
		for _, dir := range old {
			pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), groupPrefix), "-")
			if n, err := strconv.Atoi(pid); err == nil && !exists(fmt.Sprintf("/proc/%d", n)) {
				removeTree(dir)
			}
		}
	}
	dir := filepath.Join(unified, fmt.Sprintf("%s%d-%s", groupPrefix, os.Getpid(), name))
	return dir, os.Mkdir(dir, 0o755)
}

// removeGroup removes a control group whose processes are dead or dying, in every hierarchy: systemd-nspawn repeats it
// in systemd's own one where that is mounted.
func removeGroup(group string) {
	_, all := hierarchies()
	for _, top := range all {
		removeTree(filepath.Join(top, filepath.Base(group)))
	}
}

func removeTree(dir string) {
	for deadline := time.Now().Add(5 * time.Second); exists(dir) && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var groups []string
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				groups = append(groups, path)
			}
			return nil
		})
		for i := len(groups) - 1; i >= 0; i-- {
			_ = os.Remove(groups[i])
		}
	}
}

// hierarchies lists where control groups are mounted: the unified one, and all.
func hierarchies() (unified string, all []string) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", nil
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[2] != "cgroup" && f[2] != "cgroup2" {
			continue
		}
		all = append(all, f[1])
		if f[2] == "cgroup2" && unified == "" {
			unified = f[1]
		}
	}
	return unified, all
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
