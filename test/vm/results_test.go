//go:build vm

package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/test/load"
)

// outcome is a line of the file SUPERVISOR_TEST_RESULTS, which test/report turns into a table.
type outcome struct {
	Case    string `json:"case"`
	Suite   string `json:"suite"`
	Systemd int    `json:"systemd"`
	// Requests and Failed are what the client counted; Cut is the part of Failed that a killed worker took with it,
	// Refused the part that came after a stop.
	Requests   int64   `json:"requests"`
	Failed     int64   `json:"failed"`
	Cut        int64   `json:"cut"`
	Refused    int64   `json:"refused"`
	IdleClosed int64   `json:"idle_closed"`
	MaxMS      float64 `json:"max_ms"`
	// Times are further figures in milliseconds, Counts how often things were done.
	Times  map[string][]float64 `json:"times_ms,omitempty"`
	Counts map[string]int       `json:"counts,omitempty"`
	Notes  []string             `json:"notes,omitempty"`
	// Versions is what ran, in a line of its own, once for each machine.
	Versions string `json:"versions,omitempty"`
}

// time adds a figure.
func (o *outcome) time(what string, d time.Duration) {
	if o.Times == nil {
		o.Times = map[string][]float64{}
	}
	o.Times[what] = append(o.Times[what], float64(d.Microseconds())/1000)
}

// count counts one more of what.
func (o *outcome) count(what string) {
	if o.Counts == nil {
		o.Counts = map[string]int{}
	}
	o.Counts[what]++
}

var resultsMu sync.Mutex

// record writes an outcome with what the client counted.
func (m *Machine) record(o outcome, r load.Result) {
	m.t.Helper()
	o.Requests, o.Failed, o.Cut, o.Refused = r.Requests(), r.Failures(), cut(r), refused(r)
	o.IdleClosed, o.MaxMS = r.IdleClosed(), float64(r.Max())/1e6
	m.write(o)
}

// recordVersions writes which programs the figures of this machine are of.
func (m *Machine) recordVersions() {
	m.t.Helper()
	first := func(text string) string { line, _, _ := strings.Cut(text, "\n"); return line }
	haproxy, _, _ := strings.Cut(first(m.Run("haproxy", "-v")), " - ")
	versions := fmt.Sprintf("%s, %s, Linux %s", first(m.Run("systemctl", "--version")), haproxy, m.Run("uname", "-r"))
	reportLine(m.t, versions)
	m.write(outcome{Versions: versions})
}

func (m *Machine) write(o outcome) {
	m.t.Helper()
	o.Suite, o.Systemd = m.Suite, m.Systemd
	path := os.Getenv("SUPERVISOR_TEST_RESULTS")
	line, err := json.Marshal(o)
	if err == nil && path == "" {
		m.t.Logf("%s", line)
		return
	}
	if err == nil {
		err = appendLine(path, string(line))
	}
	if err != nil {
		m.t.Error(err)
	}
}

// keepFigures writes what a virtual machine printed, which has no file of the host's, to the files of the figures.
func keepFigures(t testing.TB, printed string) {
	t.Helper()
	results := os.Getenv("SUPERVISOR_TEST_RESULTS")
	for _, m := range regexp.MustCompile(`(?m)^ +\w+\.go:\d+: (.*)$`).FindAllStringSubmatch(printed, -1) {
		switch line := m[1]; {
		case strings.HasPrefix(line, "systemd "):
			reportLine(t, line)
		case strings.HasPrefix(line, `{"case":`) && results != "":
			if err := appendLine(results, line); err != nil {
				t.Error(err)
			}
		}
	}
}

func appendLine(path, line string) error {
	resultsMu.Lock()
	defer resultsMu.Unlock()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, line)
	return errors.Join(err, f.Close())
}

// cut is the number of requests that ended in the middle, as those do that a killed worker had accepted.
func cut(r load.Result) (n int64) {
	for _, c := range r.Classes {
		n += c.Kinds[load.Cut] + c.Kinds[load.Reset]
	}
	return n
}

func refused(r load.Result) (n int64) {
	for _, c := range r.Classes {
		n += c.Kinds[load.Refused]
	}
	return n
}
