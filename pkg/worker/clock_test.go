package worker

import (
	"testing"
	"time"
)

// A file that a worker writes while it starts is new, also if the clock is set meanwhile.
func TestWrittenAfterClockWasSet(t *testing.T) {
	since := time.Now()
	for _, c := range []struct {
		written, set time.Duration
		first        bool // written before the clock was set
		want         bool
	}{
		{written: time.Second, want: true},
		{written: -time.Second, want: false},
		{written: time.Second, set: -time.Hour, want: true},
		{written: time.Second, set: time.Hour, want: true},
		{written: time.Second, set: -time.Hour, first: true, want: true},
		{written: time.Second, set: time.Hour, first: true, want: true},
		{written: -time.Second, set: time.Hour, first: true, want: false},
	} {
		const elapsed = 2 * time.Second
		mtime := since.Add(c.written)
		if !c.first {
			mtime = mtime.Add(c.set)
		}
		if got := writtenAfter(mtime, since, since.Add(elapsed+c.set), elapsed); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
