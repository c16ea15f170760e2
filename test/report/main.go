// Command report prints what the scenarios counted, one row per case and one column per systemd, as a Markdown table.
// usage: report [FILE]  (default results/results.jsonl, which the last run of the containers wrote)
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// outcome is a line of the file; test/vm writes it.
type outcome struct {
	Case     string               `json:"case"`
	Systemd  int                  `json:"systemd"`
	Requests int64                `json:"requests"`
	Failed   int64                `json:"failed"`
	Cut      int64                `json:"cut"`
	Refused  int64                `json:"refused"`
	MaxMS    float64              `json:"max_ms"`
	Times    map[string][]float64 `json:"times_ms"`
	Counts   map[string]int       `json:"counts"`
	Notes    []string             `json:"notes"`
}

func main() {
	file := "results/results.jsonl"
	if len(os.Args) > 1 {
		file = os.Args[1]
	}
	if err := report(file); err != nil {
		fmt.Fprintln(os.Stderr, "report: error:", err)
		os.Exit(1)
	}
}

func report(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	rows := map[string]map[int]outcome{}
	columns := map[int]bool{}
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var o outcome
		if err := json.Unmarshal(in.Bytes(), &o); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if rows[o.Case] == nil {
			rows[o.Case] = map[int]outcome{}
		}
		rows[o.Case][o.Systemd] = o // the last run counts
		columns[o.Systemd] = true
	}
	if err := in.Err(); err != nil {
		return err
	}
	systemds := slices.Sorted(maps.Keys(columns))
	fmt.Print("| case |")
	for _, s := range systemds {
		fmt.Printf(" systemd %d |", s)
	}
	fmt.Print("\n|---|" + strings.Repeat("---|", len(systemds)) + "\n")
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		fmt.Printf("| %s |", name)
		for _, s := range systemds {
			o, ran := rows[name][s]
			fmt.Printf(" %s |", o.cell(ran))
		}
		fmt.Println()
	}
	fmt.Println("\nEach cell: requests, failed. \"cut\" is what a killed worker had accepted, \"refused\" what came after a stop. Times in ms: median, longest.")
	return nil
}

func (o outcome) cell(ran bool) string {
	if !ran {
		return ""
	}
	parts := []string{fmt.Sprintf("%d, %d failed", o.Requests, o.Failed)}
	if o.Cut > 0 {
		parts[0] += fmt.Sprintf(" (%d cut)", o.Cut)
	}
	if o.Refused > 0 {
		parts[0] += fmt.Sprintf(" (%d refused)", o.Refused)
	}
	for _, what := range slices.Sorted(maps.Keys(o.Counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", o.Counts[what], what))
	}
	for _, what := range slices.Sorted(maps.Keys(o.Times)) {
		all := slices.Sorted(slices.Values(o.Times[what]))
		parts = append(parts, fmt.Sprintf("%s %.0f, %.0f", what, all[len(all)/2], all[len(all)-1]))
	}
	return strings.Join(append(parts, o.Notes...), "; ")
}
