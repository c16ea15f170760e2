package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/8265a91a/supervisor/internal/control"
)

// timelines draws the first and the last reload.
func (d *demo) timelines() error {
	out, err := d.supervisor("status", "demo", "--json").Output()
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	var status control.Status
	if err := json.Unmarshal(out, &status); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	for i, trace := range slices.Backward(status.Handoffs) {
		if i == 0 || trace.From == 1 {
			draw(trace)
		}
	}
	return nil
}

func draw(trace control.Trace) {
	const width = 50
	var all time.Duration
	for _, step := range trace.Steps {
		all += time.Duration(step.Took)
	}
	fmt.Printf("\nhandoff of generation %d to %d: %s until its result was known\n", trace.From, trace.To, round(time.Duration(trace.Took)))
	var at time.Duration
	for _, step := range trace.Steps {
		took := time.Duration(step.Took)
		from, to := int(at*width/max(all, 1)), int((at+took)*width/max(all, 1))
		bar := strings.Repeat(" ", from) + strings.Repeat("=", to-from) + "|"
		fmt.Printf("  %-10s %-*s %9s  %s\n", step.Name, width+1, bar, round(took), step.Note)
		at += took
	}
}

func round(d time.Duration) time.Duration {
	if d < time.Millisecond {
		return d.Round(time.Microsecond)
	}
	return d.Round(100 * time.Microsecond)
}
