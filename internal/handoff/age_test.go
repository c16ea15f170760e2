package handoff_test

import (
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/handoff"
)

// The age of an adopted generation, whose time of day comes from a state, is right also if the clock was set since.
func TestAgeAfterClockWasSet(t *testing.T) {
	began := time.Now()
	for _, set := range []time.Duration{-time.Hour, time.Hour} {
		g := handoff.NewGeneration(1, 0, nil)
		g.Since = g.Since.Round(0).Add(set)
		if age := g.Age(); age < 0 || age > time.Since(began) {
			t.Errorf("set by %s it is %s old", set, age)
		}
		g.Began = 0 // an earlier supervisor's
		if age := g.Age() + set; age < 0 || age > time.Since(began)+time.Second {
			t.Errorf("set by %s without that it is %s old", set, age)
		}
	}
}
