package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/internal/text"
)

var statusCommand = command{
	name:    "status",
	summary: "show generations, sockets and the last handoffs of a service, or one line for each service",
	usage: `usage: supervisor status [NAME] [--json] [--runtime-dir DIR]

With NAME shows the service's generations, its sockets, and its last handoffs with the time that each step took.
Without NAME shows one line per service.

  --json   the same as a JSON document (version in "v"; times in RFC 3339, durations in microseconds, keys in _us);
           without NAME an array of such documents, of the services that run and answer

exit codes: 0 done, 1 a service did not answer, 3 the service is not running

examples:
  supervisor status
  supervisor status web --json | jq '.generations[] | select(.state == "serving").pid'
`,
	prepare: func(f *flags) func(*env, []string) error {
		var asJSON bool
		f.toggle("--json", &asJSON)
		return func(e *env, operands []string) error {
			if len(operands) == 0 {
				return statusOfAll(e, asJSON)
			}
			return statusOfOne(e, operands, asJSON)
		}
	},
}

func statusOfOne(e *env, operands []string, asJSON bool) error {
	name, err := e.oneName(operands)
	if err != nil {
		return err
	}
	s, err := e.status(name)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(e.stdout, s)
	}
	showStatus(e, s)
	return nil
}

func (e *env) status(name string) (control.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), control.Timeout)
	defer cancel()
	client, err := e.dial(ctx, name)
	if err != nil {
		return control.Status{}, err
	}
	defer client.Close()
	s, err := client.Status(ctx)
	if err != nil {
		return s, fmt.Errorf("ask service %s for its status: %w", name, err)
	}
	return s, nil
}

func statusOfAll(e *env, asJSON bool) error {
	names, err := control.Running(e.runtimeDir)
	if err != nil {
		return err
	}
	failed := false
	all := []control.Status{}
	rows := [][]string{{"NAME", "STATE", "GENERATION", "PID", "AGE", "DRAINING", "SOCKETS", "LAST HANDOFF"}}
	for _, name := range names {
		s, err := e.status(name)
		switch {
		case errors.Is(err, control.ErrNotRunning):
			rows = append(rows, []string{name, "not running", "", "", "", "", "", ""})
		case err != nil:
			failed = true
			e.fail(err.Error(), "")
			rows = append(rows, []string{name, "unknown", "", "", "", "", "", ""})
		default:
			all = append(all, s)
			rows = append(rows, statusRow(s))
		}
	}
	switch {
	case asJSON:
		err = writeJSON(e.stdout, all)
	case len(names) == 0:
		fmt.Fprintf(e.stderr, "supervisor: no services in %s\n", e.runtimeDir)
	default:
		table(e.stdout, "", rows)
	}
	if failed {
		return errReported
	}
	return err
}

func statusRow(s control.Status) []string {
	row := []string{s.Name, s.State, "", "", "", "0", fmt.Sprint(s.Sockets), ""}
	draining := 0
	for _, g := range s.Generations {
		switch g.State {
		case "serving":
			row[2], row[3], row[4] = fmt.Sprint(g.N), number(g.PID), age(g.Since)
		case "draining":
			draining++
		}
	}
	row[5] = fmt.Sprint(draining)
	if len(s.Handoffs) > 0 {
		h := s.Handoffs[0]
		row[7] = fmt.Sprintf("%s %s, %s ago", h.Kind, outcome(h), age(h.Started))
	}
	return row
}

func showStatus(e *env, s control.Status) {
	fmt.Fprintf(e.stdout, "%s: %s\n", text.Printable(s.Name), text.Printable(s.State))
	rows := [][]string{
		{"supervisor", fmt.Sprintf("pid %d, version %s, since %s", s.PID, s.Version, when(s.Started))},
		{"config", configLine(s.Config)},
		{"sockets", socketsLine(s)},
	}
	if s.Restart != nil {
		rows = append(rows, []string{"restart", fmt.Sprintf("attempt %d in %s: %s", s.Restart.Attempt, short(max(0, time.Until(s.Restart.At))), s.Restart.Reason)})
	}
	if s.Queued {
		rows = append(rows, []string{"reload", "one more is queued"})
	}
	for _, w := range s.Warnings {
		rows = append(rows, []string{"warning", w})
	}
	table(e.stdout, "  ", rows)
	fmt.Fprintln(e.stdout)
	showGenerations(e, s.Generations)
	if len(s.Handoffs) > 0 {
		fmt.Fprintln(e.stdout)
		showHandoffs(e, s.Handoffs)
	}
}

func configLine(c control.ConfigFile) string {
	line := c.Path
	if len(c.Sum) >= 12 {
		line += ", sum " + c.Sum[:12]
	}
	if c.Error != "" {
		line += ", cannot be read (a reload would fail): " + c.Error
	}
	if c.Changed {
		line += ", changed since (a reload applies it)"
	}
	return line
}

func socketsLine(s control.Status) string {
	if s.StoreMax == 0 {
		return fmt.Sprintf("%d held, no FD store", s.Sockets)
	}
	return fmt.Sprintf("%d held, %d of %d entries of the FD store used", s.Sockets, s.Stored, s.StoreMax)
}

func showGenerations(e *env, generations []control.Generation) {
	rows := [][]string{{"GENERATION", "STATE", "PID", "AGE", "SLOT", "DIVERT", "REMARKS"}}
	for _, g := range generations {
		rows = append(rows, []string{fmt.Sprint(g.N), g.State, number(g.PID), age(g.Since), fmt.Sprint(g.Slot), g.Divert, remarks(g)})
	}
	table(e.stdout, "  ", rows)
}

func remarks(g control.Generation) string {
	var parts []string
	if g.Adopted {
		parts = append(parts, "adopted")
	}
	if g.Phase != "" {
		parts = append(parts, g.Phase)
	}
	if !g.Deadline.IsZero() && g.State == "draining" {
		parts = append(parts, "deadline in "+span(time.Until(g.Deadline)))
	}
	if g.Status != "" {
		parts = append(parts, fmt.Sprintf("%q", g.Status))
	}
	if g.Exit != "" {
		parts = append(parts, g.Exit)
	}
	if !g.Ended.IsZero() {
		parts = append(parts, age(g.Ended)+" ago")
	}
	if g.Note != "" {
		parts = append(parts, g.Note)
	}
	return strings.Join(parts, ", ")
}

func outcome(h control.Trace) string {
	if h.OK {
		return "ok in " + short(time.Duration(h.Took))
	}
	return "failed after " + short(time.Duration(h.Took))
}

func when(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

func showHandoffs(e *env, handoffs []control.Trace) {
	rows := [][]string{{"HANDOFF", "KIND", "GENERATIONS", "STARTED", "RESULT"}}
	for _, h := range handoffs {
		result := outcome(h)
		if h.Error != "" {
			result += ": " + h.Error
		}
		generations := number(h.To)
		switch {
		case h.From != 0 && h.To != 0:
			generations = fmt.Sprintf("%d to %d", h.From, h.To)
		case h.From != 0:
			generations = fmt.Sprintf("%d to none", h.From)
		}
		rows = append(rows, []string{fmt.Sprint(h.ID), h.Kind, generations, when(h.Started), result})
	}
	table(e.stdout, "  ", rows)
	last := handoffs[0]
	fmt.Fprintf(e.stdout, "\n  handoff %d, %s:\n", last.ID, text.Printable(last.Order))
	table(e.stdout, "  ", timeline(last.Steps))
}

// timeline shows each step as a bar where and as long as it was.
func timeline(steps []control.Step) [][]string {
	const width = 40
	var total time.Duration
	for _, s := range steps {
		total += time.Duration(s.Took)
	}
	var rows [][]string
	var at time.Duration
	for _, s := range steps {
		begin := scale(at, total, width)
		at += time.Duration(s.Took)
		bar := strings.Repeat("=", max(1, scale(at, total, width)-begin))
		begin = min(begin, width-len(bar))
		bar = strings.Repeat(" ", begin) + bar + strings.Repeat(" ", width-begin-len(bar))
		note := s.Note
		if s.Err != "" {
			note = strings.TrimPrefix(note+", failed: "+s.Err, ", ")
		}
		rows = append(rows, []string{s.Name, short(time.Duration(s.Took)), strings.TrimRight("|"+bar+"|  "+note, " ")})
	}
	return rows
}

// scale is at's place on a line of width that stands for total.
func scale(at, total time.Duration, width int) int {
	if total <= 0 {
		return 0
	}
	return int(float64(at) / float64(total) * float64(width))
}
