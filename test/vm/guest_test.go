//go:build vm

package vm

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// guestScenarios are those worth the slow emulation: what depends on the kernel and on cgroups being real.
var guestScenarios = []string{"core", "harness", "j-options", "s-oom"}

// guestPackages are those whose own tests are of what the kernel does, and which of these: the virtual machine's is older than
// the host's, and too slow for load.
var guestPackages = map[string]string{
	"internal/sys":    "^(TestHide|TestSetReusePort|TestUnixFile|TestPidfd|TestMessage|TestBacklog|TestInspect|TestWatch)",
	"internal/divert": "^(TestHide|TestJoinCopies|TestJoinRefuses|TestJoinTwice|TestJoinBeside|TestFailedJoin|TestRootJoins|TestSlots|TestClosing|TestFenced|TestFenceRefuses|TestFenceIs|TestConnections|TestHalfOpen)",
}

// TestLoadModules loads those that answer sock_diag(7): the kernel asks modprobe(8) for them, which is not there.
func TestLoadModules(t *testing.T) {
	if !inside() {
		t.Skip("only inside a throw-away machine")
	}
	for _, module := range []string{"ipv4/inet_diag", "ipv4/tcp_diag", "ipv4/udp_diag", "unix/unix_diag"} {
		f, err := os.Open(one("/lib/modules", "*/kernel/net/"+module+".ko"))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			t.Errorf("load %s: %v", f.Name(), err)
		}
		f.Close()
	}
}

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
	const program = "SUPERVISOR_TEST_INSIDE=/run/test /run/test/vm.test -test.v -test.timeout 20m -test.run "
	script := "cd /tmp\n" + program + "'" + pattern + "' && echo 'passed: scenarios'\n" + program + "'^TestLoadModules$'\n"
	for pkg, tests := range guestPackages {
		name := filepath.Base(pkg) + ".test"
		build := exec.Command("go", "test", "-c", "-o", filepath.Join(dir, name), "./"+pkg)
		build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build the tests of %s: %v\n%s", pkg, err, out)
		}
		script += fmt.Sprintf("/run/test/%s -test.v -test.timeout 5m -test.run '%s' && echo 'passed: %s'\n", name, tests, pkg)
	}
	printed, err := RunGuest(t.Context(), dir, script)
	t.Logf("printed by the virtual machine:\n%s", printed)
	keepFigures(t, printed)
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range guestPackages {
		if !strings.Contains(printed, "passed: "+pkg+"\n") {
			t.Errorf("the tests of %s fail on the kernel of the virtual machine", pkg)
		}
	}
	passed := regexp.MustCompile(`(?m)^    --- PASS: TestInside/`).FindAllString(printed, -1)
	if !strings.Contains(printed, "passed: scenarios\n") || len(passed) != len(guestScenarios) {
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
