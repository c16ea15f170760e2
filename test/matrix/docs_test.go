package matrix

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/8265a91a/supervisor/pkg/activation"
	"github.com/8265a91a/supervisor/test/load"
	"github.com/8265a91a/supervisor/units"
)

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The table is what the generator makes of what was measured, and the README says what the table shows.
func TestDocuments(t *testing.T) {
	list := rows(t)
	if read(t, tableFile) != table(list) {
		t.Errorf("%s is not what is generated from %s: SUPERVISOR_MATRIX=table go test -tags vm -run '^TestMatrix$' ./test/matrix", tableFile, dataFile)
	}
	for _, file := range []string{"../../README.md", "../../CHANGELOG.md"} {
		if said := summary(list); !strings.Contains(strings.Join(strings.Fields(read(t, file)), " "), said) {
			t.Errorf("%s does not say %q", file, said)
		}
	}
	for _, r := range list {
		for class, c := range r.With.Classes {
			if class != load.Keep && c.Failed > 0 {
				t.Errorf("%s lost %d of %d requests of class %s", r.Name, c.Failed, c.Requests, class)
			}
		}
		steered := r.With.Divert == "steer" && r.Order == ""
		for _, b := range r.Broken {
			if b.Failed > 0 && (steered || b.Kind != dies) {
				t.Errorf("%s lost %d of %d requests to a newcomer: %s", r.Name, b.Failed, b.Requests, b.What)
			}
		}
	}
}

// Every preset has a row, in which every kind of broken worker was tried, and every convention has one.
func TestEveryPresetIsMeasured(t *testing.T) {
	list := rows(t)
	presets, err := units.Files.ReadDir("presets")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range presets {
		tried := map[string]bool{}
		for _, r := range list {
			if r.Preset != p.Name() {
				continue
			}
			for _, b := range r.Broken {
				tried[b.Kind] = true
			}
		}
		for _, kind := range allKinds {
			if !tried[kind] {
				t.Errorf("preset %s: no row with a worker that %s", p.Name(), kind)
			}
		}
	}
	for _, c := range activation.Conventions {
		if !slices.ContainsFunc(list, func(r *row) bool { return slices.Contains(strings.Split(r.Convention, ", "), c) }) {
			t.Errorf("convention %s: no row", c)
		}
	}
}
