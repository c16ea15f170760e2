//go:build vm

package matrix

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/8265a91a/supervisor/test/vm"
)

func TestMain(m *testing.M) { os.Exit(vm.Main(m)) }

// suite is the one whose packages the root has.
const suite = "trixie"

func TestMatrix(t *testing.T) {
	chosen, quick := choose(t)
	if suites := os.Getenv("SUPERVISOR_TEST_SUITES"); suites != "" && !slices.Contains(strings.Fields(suites), suite) {
		t.Skipf("only for %s", suite)
	}
	if len(chosen) == 0 {
		generate(t)
		return
	}
	m := vm.BootVariant(t, suite, "matrix")
	installPrograms(t, m)
	m.WriteFile("/etc/systemd/system/backend.service", "[Service]\nExecStart=/usr/bin/worker -bind tcp:127.0.0.1:7000\n")
	m.Systemctl("daemon-reload")
	m.Systemctl("start", "backend.service")
	for i, s := range servers {
		if !slices.Contains(chosen, s.name) {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			r := newRig(t, m, s, 7001+i)
			r.measure(quick)
			r.breakApplication(quick)
			if !quick {
				r.row.save(t)
			}
		})
	}
	if !quick {
		generate(t)
	}
}

// choose returns the names of the servers to run; "quick" before names makes the run of those quick.
func choose(t *testing.T) (names []string, quick bool) {
	words := strings.Fields(os.Getenv("SUPERVISOR_MATRIX"))
	if len(words) == 0 || words[0] == "quick" {
		quick = true
		words = words[min(1, len(words)):]
	}
	if slices.Equal(words, []string{"table"}) {
		return nil, false
	}
	all := len(words) == 1 && words[0] == "all"
	for _, s := range servers {
		if all || slices.Contains(words, s.name) || len(words) == 0 && s.quick {
			names = append(names, s.name)
		}
	}
	if !all && len(words) > 0 && len(names) != len(words) {
		t.Fatalf("SUPERVISOR_MATRIX: of %v there are only the servers %v", words, names)
	}
	return names, quick
}
