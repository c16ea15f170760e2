package handoff

import (
	"testing"
	"time"
)

// What a newcomer has not taken is left out when nothing has happened for a while: each socket that it takes, and each
// moment in which it is not ready, begins the time anew.
func TestGap(t *testing.T) {
	const left, notReady = 1, -1
	var g gap
	now := time.Unix(1, 0)
	for i, step := range []struct {
		after time.Duration
		left  int
		over  bool
	}{
		{0, 2, false},
		{leavePatience - 1, 2, false},
		{1, left, false}, // it took one at the last moment
		{leavePatience - 1, left, false},
		{1, notReady, false},
		{0, left, false},
		{leavePatience - 1, left, false},
		{1, left, true},
		{0, 0, true}, // nothing to wait for
		{0, left, false},
	} {
		now = now.Add(step.after)
		if step.left == notReady {
			g.end()
		} else if over := g.over(step.left, now); over != step.over {
			t.Errorf("step %d: %v", i, over)
		}
	}
}
