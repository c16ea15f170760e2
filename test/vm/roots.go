package vm

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/8265a91a/supervisor/internal/leaktest"
)

// Suites are the Debian suites to run on: SUPERVISOR_TEST_SUITES, or all.
func Suites() []string {
	if s := os.Getenv("SUPERVISOR_TEST_SUITES"); s != "" {
		return strings.Fields(s)
	}
	return []string{"bookworm", "trixie", "sid"}
}

// Root returns the path of a cached root file system, which is built if it is missing. It must not be changed.
func Root(suite, variant string) (string, error) {
	cmd := exec.Command(filepath.Join(here(), "roots", "build"), suite, variant)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build root %s/%s: %w\n%s", suite, variant, err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

// here is the directory of this package's source.
func here() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(file)
}

// unitsDir is where the project's units are.
func unitsDir() string { return filepath.Join(here(), "..", "..", "units") }

// builds are the programs under test, by name.
var builds = map[string]string{"supervisor": "./cmd/supervisor", "worker": "./test/worker", "bench": "./test/bench"}

// binaries builds the programs under test, static and once per test process, into a directory that Main removes.
var binaries = sync.OnceValues(func() (map[string]string, error) {
	built := map[string]string{}
	dir, err := os.MkdirTemp("", "supervisor-test-")
	if err != nil {
		return nil, err
	}
	binariesDir = dir
	for name, pkg := range builds {
		built[name] = filepath.Join(dir, name)
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", built[name], pkg)
		cmd.Dir = filepath.Join(here(), "..", "..")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	return built, nil
})

var binariesDir string

// Main runs the tests of a package that boots machines, fails on leaks, and removes what was built.
func Main(m *testing.M) int {
	code := leaktest.Main(m)
	if binariesDir != "" {
		os.RemoveAll(binariesDir)
	}
	return code
}
