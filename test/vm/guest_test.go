//go:build vm

package vm

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// guestScenarios are those worth the slow emulation: what depends on the kernel and on cgroups being real.
var guestScenarios = []string{"core", "harness", "j-options", "s-oom"}

// TestVirtualMachine boots a virtual machine whose kernel is not the host's, and runs this same test program in it.
func TestVirtualMachine(t *testing.T) {
	if inside() {
		t.Skip("this is the virtual machine")
	}
	built, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, path := range built {
		copyFile(t, path, filepath.Join(dir, name))
	}
	units, err := filepath.Glob(filepath.Join(unitsDir(), "*.service"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range units {
		copyFile(t, path, filepath.Join(dir, filepath.Base(path)))
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, self, filepath.Join(dir, "vm.test"))
	if out, err := exec.Command("strip", filepath.Join(dir, "vm.test")).CombinedOutput(); err != nil {
		t.Logf("strip: %v: %s", err, out)
	}
	pattern := "^TestInside$/^(" + strings.Join(guestScenarios, "|") + ")$"
	printed, err := RunGuest(t.Context(), dir, "cd /tmp && SUPERVISOR_TEST_INSIDE=/run/test exec /run/test/vm.test -test.v -test.timeout 20m -test.run '"+pattern+"'\n")
	t.Logf("printed by the virtual machine:\n%s", printed)
	keepFigures(t, printed)
	if err != nil {
		t.Fatal(err)
	}
	passed := regexp.MustCompile(`(?m)^    --- PASS: TestInside/`).FindAllString(printed, -1)
	if !regexp.MustCompile(`(?m)^PASS$`).MatchString(printed) || len(passed) != len(guestScenarios) {
		t.Errorf("%d of %d scenarios passed inside", len(passed), len(guestScenarios))
	}
}

// TestInside runs scenarios on this very machine, which they change: only where SUPERVISOR_TEST_INSIDE names the
// directory with the programs under test.
func TestInside(t *testing.T) {
	if !inside() {
		t.Skip("only inside a throw-away machine")
	}
	m := Local(t, os.Getenv("SUPERVISOR_TEST_INSIDE"))
	m.recordVersions()
	for _, name := range sortedNames() {
		t.Run(name, func(t *testing.T) { m.With(t).run(scenarios[name]) })
	}
}

func inside() bool { return os.Getenv("SUPERVISOR_TEST_INSIDE") != "" }

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
