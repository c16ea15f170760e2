//go:build vm

package matrix

import (
	"cmp"
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
	chosen, how := choose(t)
	quick := how == "quick"
	if suites := os.Getenv("SUPERVISOR_TEST_SUITES"); suites != "" && !slices.Contains(strings.Fields(suites), suite) {
		t.Skipf("only for %s", suite)
	}
	if len(chosen) == 0 {
		(*row)(nil).save(t)
		generate(t)
		return
	}
	machines := map[string]*vm.Machine{}
	for i, s := range servers {
		if !slices.Contains(chosen, s.name) {
			continue
		}
		root := cmp.Or(s.root, suite+"/matrix")
		if machines[root] == nil {
			machines[root] = boot(t, root)
		}
		t.Run(s.name, func(t *testing.T) {
			if s.fetch != nil {
				s.fetch(machines[root].With(t), t)
			}
			r := newRig(t, machines[root], s, 7001+i)
			if how == "broken" {
				r.row.keep(t)
				r.start()
			} else {
				r.measure(quick)
			}
			r.breakApplication(quick)
			if !quick && !t.Failed() {
				r.row.save(t)
			}
		})
	}
	if !quick {
		generate(t)
	}
}

// boot boots a root file system, SUITE/VARIANT, with the programs of this tree and a server behind the proxies.
func boot(t *testing.T, root string) *vm.Machine {
	suite, variant, _ := strings.Cut(root, "/")
	m := vm.BootVariant(t, suite, variant)
	installPrograms(t, m)
	m.WriteFile("/etc/systemd/system/backend.service", "[Service]\nExecStart=/usr/bin/worker -bind tcp:127.0.0.1:7000\n")
	m.Systemctl("daemon-reload")
	m.Systemctl("start", "backend.service")
	return m
}

// generate writes docs/matrix.md.
func generate(t *testing.T) {
	text := table(rows(t))
	if err := os.WriteFile(tableFile, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", text)
}

// choose returns the names of the servers to run, and how: "quick", "broken", or "" for all that there is to a row. Either
// word may stand before names.
func choose(t *testing.T) (names []string, how string) {
	words := strings.Fields(os.Getenv("SUPERVISOR_MATRIX"))
	if len(words) == 0 {
		how = "quick"
	} else if words[0] == "quick" || words[0] == "broken" {
		how, words = words[0], words[1:]
	}
	if slices.Equal(words, []string{"table"}) {
		return nil, ""
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
	return names, how
}
