// Package docs_test compares the documents with what they are about.
package docs_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/8265a91a/supervisor/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../..", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestManualPagesAreClean(t *testing.T) {
	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		t.Skip("mandoc is not installed")
	}
	pages, err := filepath.Glob("../../man/*")
	if err != nil || len(pages) == 0 {
		t.Fatalf("manual pages: %v, %v", pages, err)
	}
	out, err := exec.Command(mandoc, append([]string{"-T", "lint"}, pages...)...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		// Which other pages there are depends on the machine.
		if !strings.Contains(line, "referenced manual not found") && !strings.Contains(line, "mandoc.db") {
			t.Error(strings.TrimSpace(line))
		}
	}
}

// Every key that internal/config documents is in supervisor.toml(5), in the order of its tables.
func TestManualPageHasEveryKey(t *testing.T) {
	page := read(t, "man/supervisor.toml.5")
	sections := regexp.MustCompile(`(?m)^\.Sh `).Split(page, -1)
	section := map[string]string{}
	for _, s := range sections {
		title, _, _ := strings.Cut(s, "\n")
		section[strings.ToLower(title)] = s
	}
	table := ""
	keys := 0
	for line := range strings.Lines(read(t, "internal/config/doc.go")) {
		line, _ = strings.CutPrefix(strings.TrimSuffix(line, "\n"), "//\t")
		if m := regexp.MustCompile(`^\[+(\w+)\]+$`).FindStringSubmatch(line); m != nil {
			table = m[1]
			continue
		}
		m := regexp.MustCompile(`^(\w+(?:, \w+)?) +(P +)?(array|boolean|duration|table|string|signal|integer) `).FindStringSubmatch(line)
		if m == nil {
			continue
		}
		for key := range strings.SplitSeq(m[1], ", ") {
			keys++
			// ".It Cm user , group" names two.
			if !regexp.MustCompile(`(?m)^\.It Cm (\w+ , )?` + key + `\b`).MatchString(section[table]) {
				t.Errorf("[%s] %s is not in supervisor.toml(5)", table, key)
			}
		}
	}
	if keys < 39 {
		t.Errorf("only %d keys were found in internal/config/doc.go", keys)
	}
}

func TestManualPageHasEveryCommand(t *testing.T) {
	page := read(t, "man/supervisor.8")
	files, err := filepath.Glob("../../cmd/supervisor/*.go")
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for _, path := range files {
		source := read(t, strings.TrimPrefix(path, "../../"))
		for _, m := range regexp.MustCompile(`= command\{\s+name: +"(\w+)"`).FindAllStringSubmatch(source, -1) {
			commands++
			if !strings.Contains(page, "\n.It Cm "+m[1]) {
				t.Errorf("%s is not in supervisor(8)", m[1])
			}
		}
	}
	if commands < 10 {
		t.Errorf("only %d commands were found", commands)
	}
}

// The table of what survives what names tests that exist.
func TestSurvivesNamesScenarios(t *testing.T) {
	files, err := filepath.Glob("../../test/vm/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	scenarios := map[string]bool{}
	for _, path := range files {
		for _, m := range regexp.MustCompile(`scenario\("([^"]+)"`).FindAllStringSubmatch(read(t, strings.TrimPrefix(path, "../../")), -1) {
			scenarios[m[1]] = true
		}
	}
	rows := 0
	for line := range strings.Lines(read(t, "docs/survives.md")) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 6 || strings.HasPrefix(cells[0], "-") || strings.Contains(cells[5], "test") {
			continue
		}
		rows++
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[5], -1) {
			if !scenarios[m[1]] {
				t.Errorf("no scenario is called %q: %s", m[1], strings.TrimSpace(line))
			}
		}
	}
	if rows < 10 {
		t.Errorf("only %d rows were found in docs/survives.md", rows)
	}
}

// Every key of the JSON output is in docs/json.md.
func TestJSONIsDocumented(t *testing.T) {
	page := read(t, "docs/json.md")
	keys := 0
	for _, path := range []string{"internal/control/status.go", "cmd/supervisor/fetch.go"} {
		for _, m := range regexp.MustCompile("`json:\"(\\w+)").FindAllStringSubmatch(read(t, path), -1) {
			keys++
			if !strings.Contains(page, "`"+m[1]+"`") {
				t.Errorf("%s of %s is not in docs/json.md", m[1], path)
			}
		}
	}
	if keys < 50 {
		t.Errorf("only %d keys were found", keys)
	}
}

// The README explains every line of the service's template.
func TestUnitIsExplained(t *testing.T) {
	readme := read(t, "README.md")
	_, service, _ := strings.Cut(read(t, "units/supervisor@.service"), "[Service]")
	service, _, _ = strings.Cut(service, "[Install]")
	for line := range strings.Lines(service) {
		line = strings.TrimSpace(line)
		key, _, isSetting := strings.Cut(line, "=")
		if !isSetting || strings.HasPrefix(line, "#") {
			continue
		}
		want := "`" + line + "`"
		if key == "ExecStopPost" {
			want = "`ExecStopPost=-… sweep %i`"
		}
		if !strings.Contains(readme, want) {
			t.Errorf("the README does not explain %s", line)
		}
	}
}
