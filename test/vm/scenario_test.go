//go:build vm

package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// scenarioFunc is one case, run on every suite.
type scenarioFunc func(t *testing.T, m *Machine)

var scenarios = map[string]scenarioFunc{}

const newest = "sid"

// turns are the suites that share what need not run on each of them.
var turns = []string{"bookworm", "trixie", newest}

// scenario registers a case; its name is the last part of TestScenarios/SUITE/NAME.
func scenario(name string, run scenarioFunc) struct{} {
	if scenarios[name] != nil {
		panic("scenario " + name + " is registered twice")
	}
	scenarios[name] = run
	return struct{}{}
}

// runScenarios boots one container per suite and runs every scenario on it, one after the other, on all suites at the same
// time: most of them wait most of the time.
func runScenarios(t *testing.T) {
	// A moving suite: what it serves today may not even install, and that says nothing about this project.
	var noNewest error
	if slices.Contains(Suites(), newest) {
		if _, noNewest = Root(newest, "base"); noNewest != nil {
			turns = slices.DeleteFunc(turns, func(suite string) bool { return suite == newest })
			reportLine(t, fmt.Sprintf("NEWEST SYSTEMD NOT TESTED: %v", noNewest))
		}
	}
	for _, suite := range Suites() {
		t.Run(suite, func(t *testing.T) {
			if suite == newest && noNewest != nil {
				t.Skip(noNewest)
			}
			t.Parallel()
			m := Boot(t, suite)
			m.recordVersions()
			for _, name := range sortedNames() {
				t.Run(name, func(t *testing.T) { m.With(t).run(scenarios[name]) })
			}
		})
	}
}

func sortedNames() []string {
	var names []string
	for name := range scenarios {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// run runs one scenario and shows what the container logged meanwhile if it failed.
func (m *Machine) run(scenario scenarioFunc) {
	t := m.t.(*testing.T)
	cursor := m.Cursor()
	defer func() {
		if t.Failed() {
			text := m.try(nil, "journalctl", "-q", "--no-pager", "-o", "short-precise", "--after-cursor", cursor).Stdout
			if path := os.Getenv("SUPERVISOR_TEST_RESULTS"); path != "" { // all of it, as what went wrong may be long ago
				path = filepath.Join(filepath.Dir(path), strings.ReplaceAll(t.Name(), "/", "-")+".journal")
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Error(err)
				}
			}
			lines := strings.Split(text, "\n")
			const most = 150
			if len(lines) > most {
				lines = lines[len(lines)-most:]
			}
			t.Logf("journal:\n%s", strings.Join(lines, "\n"))
		}
	}()
	scenario(t, m)
}
