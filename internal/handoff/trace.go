package handoff

import (
	"strings"
	"time"
)

// Trace is the record of one handoff: what each step did and how long it took.
type Trace struct {
	ID      int       `json:"id"`
	Kind    Kind      `json:"kind"`
	Order   string    `json:"order"`
	Started time.Time `json:"started"`
	From    int       `json:"from,omitempty"`
	To      int       `json:"to,omitempty"`
	Steps   []Timed   `json:"steps"`
	// Took is the time until the result was known, in nanoseconds.
	Took  time.Duration `json:"took"`
	OK    bool          `json:"ok"`
	Error string        `json:"error,omitempty"`
}

// Summary is the steps and their times in one line.
func (t *Trace) Summary() string {
	var b strings.Builder
	for i, s := range t.Steps {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(s.Name + " " + s.Took.Round(10*time.Microsecond).String())
	}
	return b.String()
}

// Kind says why a handoff happens.
type Kind string

// The kinds.
const (
	Start   Kind = "start"   // the service's first worker
	Reload  Kind = "reload"  // asked for, or after a restart of the service
	Restart Kind = "restart" // the serving worker died
	Replace Kind = "replace" // the serving worker hangs, or must leave its half of the pairs
)

// Timed is one step of a [Trace].
type Timed struct {
	Name  string        `json:"name"`
	Took  time.Duration `json:"took"`
	Note  string        `json:"note,omitempty"`
	Error string        `json:"error,omitempty"`
}
