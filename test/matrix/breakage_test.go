//go:build vm

package matrix

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/test/load"
	"github.com/8265a91a/supervisor/test/vm"
)

// breakApplication reloads to each way of being broken, or quickly to the first: the reload fails, says why, and nothing
// is lost; then it is mended.
func (r *rig) breakApplication(quick bool) {
	r.t.Helper()
	breaks := r.breakages()
	if quick {
		breaks = breaks[:min(1, len(breaks))]
	}
	for _, b := range breaks {
		r.breakOnce(b)
	}
	if len(breaks) == 0 {
		return
	}
	r.WriteFile(r.config(), r.toml)
	if res := r.TrySystemctl("reload", r.unit); res.Code != 0 {
		r.t.Errorf("reload after all was mended: %s\n%s", res.Stderr, r.tail())
	}
}

// breakOnce reloads by systemctl and by supervisor.
func (r *rig) breakOnce(b breakage) {
	r.t.Helper()
	toml := impatient(r.toml, b.patience)
	if b.command != nil {
		toml = r.expand(withCommand(toml, b.command))
	}
	r.WriteFile(r.config(), toml)
	before := r.status()
	cursor := r.Cursor()
	var byUnit, byName vm.Result
	result := r.under(r.clients(), func() {
		r.Sh(r.expand(b.how))
		byUnit = r.TrySystemctl("reload", r.unit)
		r.serves()
		byName = r.Try("supervisor", "reload", r.s.name)
		r.serves()
	})
	after := r.status()
	said := r.JournalAfter(r.unit, cursor)
	message := errorOf(said)
	r.Sh(r.expand(b.mend))
	r.t.Logf("%s: %s\n%s", b.what, message, result)
	outcome := broken{Kind: b.kind, What: b.what, Requests: result.Requests(), Message: message}
	lost := int64(0)
	for class, c := range result.Classes {
		closed := c.Kinds[load.Idle] // nothing is drained, but for signal-first
		if r.signalFirst() || r.s.most > 0 && closed <= c.Requests()/r.s.most {
			closed = 0
		}
		n := c.Failures() + closed
		outcome.Failed += n
		if r.signalFirst() && class == load.Keep || b.takes {
			n -= closed + c.Kinds[load.Cut] + c.Kinds[load.Reset]
		}
		lost += n
	}
	r.row.Broken = append(r.row.Broken, outcome)
	var complaints []string
	complain := func(format string, args ...any) { complaints = append(complaints, fmt.Sprintf(format, args...)) }
	if byUnit.Code != 1 || byName.Code != 1 {
		complain("systemctl reload says %d, supervisor reload %d", byUnit.Code, byName.Code)
	}
	if lost > 0 {
		complain("%d requests lost", lost)
	}
	if !r.signalFirst() && serving(before.Generations) != serving(after.Generations) {
		complain("another worker serves")
	}
	for _, w := range b.words {
		if !strings.Contains(message, w) || !strings.Contains(byName.Stderr, w) {
			complain("the message does not say %q", w)
		}
	}
	if len(complaints) > 0 {
		r.t.Errorf("%s: %s\n%s\n%s\n%s", b.what, strings.Join(complaints, "; "), result, byName.Stderr, said)
	}
}

// serves waits until a generation serves: with the order signal-first the old one has ended, and is started again.
func (r *rig) serves() {
	r.t.Helper()
	r.Eventually(30*time.Second, func() string {
		if serving(r.status().Generations) == 0 {
			return "no generation serves"
		}
		return ""
	})
}

// errorOf is what the supervisor said about the first failed reload, the worker's last words included.
func errorOf(journal string) string {
	var b strings.Builder
	for line := range strings.Lines(journal) {
		if text, ok := strings.CutPrefix(line, "supervisor: error: "); ok {
			if b.Len() > 0 {
				break
			}
			b.WriteString(text)
		} else if text, ok := strings.CutPrefix(line, "supervisor: output: "); ok {
			b.WriteString(text)
		}
	}
	return strings.TrimSpace(b.String())
}

var commandKey = regexp.MustCompile(`(?ms)^command\s*=\s*\[.*?\]$`)

// withCommand is a configuration with another program in the place of the server.
func withCommand(toml string, command []string) string {
	quoted := make([]string, len(command))
	for i, word := range command {
		quoted[i] = "'''" + word + "'''"
	}
	at := commandKey.FindStringIndex(toml)
	return toml[:at[0]] + "command = [" + strings.Join(quoted, ", ") + "]" + toml[at[1]:]
}

// impatient is a configuration that does not wait longer than that for what hangs, and 3 s for the check.
func impatient(toml, patience string) string {
	if patience == "" {
		patience = "5s"
	}
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
			b.WriteString("timeout = \"" + patience + "\"\n")
		case "[worker]":
			b.WriteString("check_timeout = \"3s\"\n")
		}
	}
	if !found {
		b.WriteString("\n[ready]\ntimeout = \"" + patience + "\"\n")
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
