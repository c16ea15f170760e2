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

// column is a machine: a container with some systemd, or the virtual machine.
type column struct {
	systemd int
	virtual bool
}

func (c column) String() string {
	if c.virtual {
		return fmt.Sprintf("systemd %d, virtual machine", c.systemd)
	}
	return fmt.Sprintf("systemd %d", c.systemd)
}

func compare(a, b column) int {
	if a.virtual != b.virtual {
		return map[bool]int{true: 1, false: -1}[a.virtual]
	}
	return a.systemd - b.systemd
}

// outcome is a line of the file; test/vm writes it.
type outcome struct {
	Case     string               `json:"case"`
	Suite    string               `json:"suite"`
	Systemd  int                  `json:"systemd"`
	Requests int64                `json:"requests"`
	Failed   int64                `json:"failed"`
	Cut      int64                `json:"cut"`
	Refused  int64                `json:"refused"`
	MaxMS    float64              `json:"max_ms"`
	Times    map[string][]float64 `json:"times_ms"`
	Counts   map[string]int       `json:"counts"`
	Notes    []string             `json:"notes"`
	Versions string               `json:"versions"`
}

// add puts together what was done several times.
func (o *outcome) add(more outcome) {
	o.Requests += more.Requests
	o.Failed += more.Failed
	o.Cut += more.Cut
	o.Refused += more.Refused
	o.MaxMS = max(o.MaxMS, more.MaxMS)
	for what, all := range more.Times {
		if o.Times == nil {
			o.Times = map[string][]float64{}
		}
		o.Times[what] = append(o.Times[what], all...)
	}
	for what, n := range more.Counts {
		if o.Counts == nil {
			o.Counts = map[string]int{}
		}
		o.Counts[what] += n
	}
	o.Notes = append(o.Notes, more.Notes...)
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
	rows := map[string]map[column]outcome{}
	columns := map[column]string{}
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var o outcome
		if err := json.Unmarshal(in.Bytes(), &o); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		c := column{o.Systemd, o.Suite == "local"}
		if o.Versions != "" {
			columns[c] = o.Versions
			continue
		}
		if rows[o.Case] == nil {
			rows[o.Case] = map[column]outcome{}
		}
		sum := rows[o.Case][c]
		sum.add(o)
		rows[o.Case][c] = sum
		columns[c] += "" // it may have no line of versions
	}
	if err := in.Err(); err != nil {
		return err
	}
	machines := slices.SortedFunc(maps.Keys(columns), compare)
	fmt.Print("| case |")
	for _, c := range machines {
		fmt.Printf(" %s |", c)
	}
	fmt.Print("\n|---|" + strings.Repeat("---|", len(machines)) + "\n")
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		fmt.Printf("| %s |", name)
		for _, c := range machines {
			o, ran := rows[name][c]
			fmt.Printf(" %s |", o.cell(ran))
		}
		fmt.Println()
	}
	fmt.Println()
	for _, c := range machines {
		if columns[c] != "" {
			fmt.Printf("%s: %s\n", c, columns[c])
		}
	}
	fmt.Println("\nEach cell: requests, failed, the longest. \"cut\" is what a killed worker had accepted, \"refused\" what came after a stop. Times in ms: median, longest.")
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
	if o.MaxMS > 0 {
		parts[0] += fmt.Sprintf(", %.0f ms", o.MaxMS)
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
