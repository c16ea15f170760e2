// Package house_test keeps the house in order: which package may import which,
// and what the binary must not link.
package house_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/8265a91a/supervisor/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }

const module = "github.com/8265a91a/supervisor/"

// floors lists the packages from the top of the house to its ground. An import goes down: what stands on the same
// line, or above, must not be imported.
var floors = [][]string{
	{"cmd/supervisor"},
	{"internal/supervisor"},
	{"internal/handoff"},
	{"internal/config"},
	{"internal/control"},
	{"pkg/graceful"},
	{"pkg/activation"},
	{"pkg/fdstore"},
	{"pkg/getsocks"},
	{"internal/divert"},
	{"internal/probe"},
	{"pkg/worker"},
	{"internal/sockets"},
	{"internal/intercept"},
	{"internal/unit"},
	{"internal/sys"},
	{"internal/text"},
	{"internal/fault"},
	{"units"},
}

func floor(pkg string) int {
	return slices.IndexFunc(floors, func(names []string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return pkg == n || strings.HasPrefix(pkg, n+"/") })
	})
}

// forTests reports whether a package is there for tests only: test/ and whatever is named after Go's own, such as httptest.
func forTests(pkg string) bool {
	return strings.HasPrefix(pkg, "test/") || slices.ContainsFunc(strings.Split(pkg, "/"), func(s string) bool { return strings.HasSuffix(s, "test") })
}

// list runs go list with a format that prints one line per package.
func list(t *testing.T, format string, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-f", format}, args...)...)
	cmd.Dir = "../.."
	// As the binary is built.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestImportsPointDown(t *testing.T) {
	for _, line := range list(t, `{{.ImportPath}} {{join .Imports " "}}`, "./...") {
		fields := strings.Fields(line)
		importer := strings.TrimPrefix(fields[0], module)
		from := floor(importer)
		if from < 0 {
			if forTests(importer) || importer == "examples" || strings.HasPrefix(importer, "examples/") {
				continue
			}
			t.Errorf("%s has no place in the house", importer)
			continue
		}
		for _, i := range fields[1:] {
			imported, ours := strings.CutPrefix(i, module)
			switch {
			case ours && forTests(imported):
				t.Errorf("%s imports %s, which is for tests", importer, imported)
			case ours && (floor(imported) < from || floor(imported) == from && imported != importer && !strings.HasPrefix(imported, importer+"/")):
				t.Errorf("%s imports %s, which is not below it", importer, imported)
			case strings.HasPrefix(i, "golang.org/x/sys/") && importer != "internal/sys":
				t.Errorf("%s imports %s: only internal/sys talks to the kernel", importer, i)
			}
		}
	}
}

// The packages for others neither log nor read configuration.
func TestLibrariesAreSilent(t *testing.T) {
	for _, line := range list(t, `{{.ImportPath}} {{join .Imports " "}}`, "./pkg/...") {
		fields := strings.Fields(line)
		for _, bad := range []string{"log", "log/slog", "flag", "os/exec", "github.com/BurntSushi/toml"} {
			if slices.Contains(fields[1:], bad) {
				t.Errorf("%s imports %s", strings.TrimPrefix(fields[0], module), bad)
			}
		}
	}
}

func TestBinaryLinksNoHTTPAndNoTLS(t *testing.T) {
	deps := list(t, `{{.ImportPath}}`, "-deps", "./cmd/supervisor")
	for _, bad := range []string{"net/http", "crypto/tls", "testing", "C", "runtime/cgo"} {
		if slices.Contains(deps, bad) {
			t.Errorf("cmd/supervisor links %s", bad)
		}
	}
}
