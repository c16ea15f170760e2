//go:build vm

package matrix

import (
	"fmt"
	"strings"

	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/test/load"
)

// breakApplication reloads to each way of being broken, or quickly to the first: the reload fails, says why, and nothing
// is lost; then it is mended.
func (r *rig) breakApplication(quick bool) {
	r.t.Helper()
	breaks := r.s.breaks
	if len(breaks) == 0 {
		return
	}
	if quick {
		breaks = breaks[:1]
	}
	impatient := impatient(r.toml)
	for _, b := range breaks {
		r.WriteFile(r.config(), impatient)
		clients := without(without(r.clients(), load.Slow), load.UDP)
		before := r.status()
		cursor := r.Cursor()
		code := 0
		result := r.under(clients, func() {
			r.Sh(r.expand(b.how))
			code = r.TrySystemctl("reload", r.unit).Code
		})
		after := r.status()
		said := r.JournalAfter(r.unit, cursor)
		message := errorOf(said)
		r.Sh(r.expand(b.mend))
		r.t.Logf("%s: %s\n%s", b.what, message, result)
		lost := result.Classes[load.New].Failures() + result.Classes[load.Late].Failures()
		outcome := broken{What: b.what, Failed: lost, Requests: result.Requests(), Message: message}
		r.row.Broken = append(r.row.Broken, outcome)
		var complaints []string
		if code == 0 {
			complaints = append(complaints, "systemctl reload says 0")
		}
		if lost > 0 {
			complaints = append(complaints, fmt.Sprintf("%d requests lost", lost))
		}
		if serving(before.Generations) != serving(after.Generations) {
			complaints = append(complaints, "another worker serves")
		}
		for _, w := range b.words {
			if !strings.Contains(message, w) {
				complaints = append(complaints, fmt.Sprintf("the message does not say %q", w))
			}
		}
		if len(complaints) > 0 {
			r.t.Errorf("%s: %s\n%s\n%s", b.what, strings.Join(complaints, "; "), result, said)
		}
	}
	r.WriteFile(r.config(), r.toml)
	if res := r.TrySystemctl("reload", r.unit); res.Code != 0 {
		r.t.Errorf("reload after all was mended: %s\n%s", res.Stderr, r.tail())
	}
}

// errorOf is what the supervisor said about a failed reload, the worker's last words included.
func errorOf(journal string) string {
	var b strings.Builder
	for line := range strings.Lines(journal) {
		if text, ok := strings.CutPrefix(line, "supervisor: error: "); ok {
			b.WriteString(text)
		} else if text, ok := strings.CutPrefix(line, "supervisor: output: "); ok {
			b.WriteString(text)
		}
	}
	return strings.TrimSpace(b.String())
}

// impatient is a configuration that does not wait long for what hangs.
func impatient(toml string) string {
	var b strings.Builder
	table, found := "", false
	for line := range strings.Lines(toml) {
		if strings.HasPrefix(line, "[") {
			table = strings.TrimSpace(line)
		}
		if table == "[ready]" && strings.HasPrefix(line, "timeout") {
			continue
		}
		b.WriteString(line)
		switch strings.TrimSpace(line) {
		case "[ready]":
			found = true
			b.WriteString("timeout = \"5s\"\n")
		case "[worker]":
			b.WriteString("check_timeout = \"3s\"\n")
		}
	}
	if !found {
		b.WriteString("\n[ready]\ntimeout = \"5s\"\n")
	}
	return b.String()
}

// serving is the pid of the generation that serves.
func serving(list []control.Generation) int {
	for _, g := range list {
		if g.State == "serving" {
			return g.PID
		}
	}
	return 0
}
