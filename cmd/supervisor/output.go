package main

// Output follows these rules. What was asked for goes to stdout, in tables or, with --json, as one documented and
// versioned document. Messages go to stderr, as "supervisor: error: ..." and "supervisor: hint: ...", in lower case
// and without a full stop. Nothing that a worker or a file brought in reaches a terminal with its control characters.

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/8265a91a/supervisor/internal/text"
)

// table writes rows of cells in aligned columns. An empty cell shows as "-".
func table(w io.Writer, indent string, rows [][]string) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if cell == "" {
				cell = "-"
			}
			if i == 0 {
				fmt.Fprint(tw, indent)
			} else {
				fmt.Fprint(tw, "\t")
			}
			fmt.Fprint(tw, text.Printable(cell))
		}
		fmt.Fprintln(tw)
	}
	tw.Flush()
}

// writeJSON writes v as one indented document.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// short shows a duration in three digits or so.
func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%dµs", d.Microseconds())
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1fms", d.Seconds()*1e3)
	case d < time.Second:
		return fmt.Sprintf("%.0fms", d.Seconds()*1e3)
	case d < time.Minute:
		return fmt.Sprintf("%.2fs", d.Seconds())
	}
	return span(d)
}

// span shows a long duration in its two largest units.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
}

// age shows how long ago t was.
func age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return span(time.Since(t))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// number shows n, and 0 as nothing.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
