package load

import (
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"time"
)

// Kind is what a request met.
type Kind int

// The kinds. All but OK and Idle are failures.
const (
	OK Kind = iota
	// Refused: nobody listened (ECONNREFUSED, or a unix path that is not there).
	Refused
	// Reset: the connection was reset before the whole answer had come.
	Reset
	// Cut: the connection ended before the whole answer had come.
	Cut
	// Timeout: no whole answer within Options.Timeout.
	Timeout
	// Wrong: a whole answer, but not the right one.
	Wrong
	// Other: an error of the client itself, such as no free port.
	Other
	// Idle: a kept connection was found closed before any byte of the next answer, as HTTP allows a server to do.
	Idle
	kinds
)

var kindNames = [kinds]string{"ok", "refused", "reset", "cut", "timeout", "wrong", "other", "idle-closed"}

func (k Kind) String() string { return kindNames[k] }

// Count is what one class of clients met.
type Count struct {
	// Kinds counts requests by what they met.
	Kinds [kinds]int64
	// Workers counts the answers of each worker ("" where the answer does not say).
	Workers map[string]int64
	// Latency is that of the requests that were answered.
	Latency Histogram
	// Examples holds the first failures as text.
	Examples []string
}

const maxExamples = 5

func newCount() *Count { return &Count{Workers: map[string]int64{}} }

func (c *Count) add(o outcome) {
	c.Kinds[o.kind]++
	if o.kind != OK && o.kind != Idle && len(c.Examples) < maxExamples {
		c.Examples = append(c.Examples, fmt.Sprintf("%s at %s: %v", o.kind, time.Now().Format("15:04:05.000"), o.err))
	}
	if o.kind == OK || o.kind == Wrong {
		c.Workers[o.worker]++
		c.Latency.Add(o.took)
	}
}

// Requests is the number of requests.
func (c *Count) Requests() int64 {
	var sum int64
	for _, n := range c.Kinds {
		sum += n
	}
	return sum
}

// Failures is the number of requests that failed, idle closes left out.
func (c *Count) Failures() int64 { return c.Requests() - c.Kinds[OK] - c.Kinds[Idle] }

func (c *Count) clone() *Count {
	d := *c
	d.Workers, d.Examples = maps.Clone(c.Workers), slices.Clone(c.Examples)
	return &d
}

// Result is what a run counted.
type Result struct {
	Started time.Time
	Took    time.Duration
	Classes map[Class]*Count
}

func (r Result) clone(took time.Duration) Result {
	c := Result{Started: r.Started, Took: took, Classes: map[Class]*Count{}}
	for class, count := range r.Classes {
		c.Classes[class] = count.clone()
	}
	return c
}

// Requests is the number of requests of all classes.
func (r Result) Requests() int64 { return r.sum((*Count).Requests) }

// Failures is the number of failed requests of all classes, closes of idle kept connections left out (see [Result.IdleClosed]).
func (r Result) Failures() int64 { return r.sum((*Count).Failures) }

// IdleClosed is the number of requests that met a kept connection closed while idle.
func (r Result) IdleClosed() int64 { return r.sum(func(c *Count) int64 { return c.Kinds[Idle] }) }

func (r Result) sum(of func(*Count) int64) int64 {
	var sum int64
	for _, c := range r.Classes {
		sum += of(c)
	}
	return sum
}

// Workers lists who answered, in any class.
func (r Result) Workers() map[string]int64 {
	all := map[string]int64{}
	for _, c := range r.Classes {
		for w, n := range c.Workers {
			all[w] += n
		}
	}
	return all
}

// Max is the longest answered request of any class.
func (r Result) Max() time.Duration {
	var longest time.Duration
	for _, c := range r.Classes {
		longest = max(longest, c.Latency.Max())
	}
	return longest
}

// String is one line per class: requests, failures by kind, workers and latencies.
func (r Result) String() string {
	var b strings.Builder
	for i, class := range slices.Sorted(maps.Keys(r.Classes)) {
		if i > 0 {
			b.WriteByte('\n')
		}
		c := r.Classes[class]
		fmt.Fprintf(&b, "%-5s %7d requests %5d failed", class, c.Requests(), c.Failures())
		for k := Refused; k < kinds; k++ {
			if c.Kinds[k] > 0 {
				fmt.Fprintf(&b, " %s=%d", k, c.Kinds[k])
			}
		}
		fmt.Fprintf(&b, "  %d workers  p50 %s p99 %s p99.9 %s max %s", len(c.Workers),
			short(c.Latency.Quantile(0.5)), short(c.Latency.Quantile(0.99)), short(c.Latency.Quantile(0.999)), short(c.Latency.Max()))
		for _, e := range c.Examples {
			b.WriteString("\n      " + e)
		}
	}
	return b.String()
}

func short(d time.Duration) string {
	if d < time.Millisecond {
		return d.Round(time.Microsecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}

// Histogram counts durations in buckets of a sixteenth of their power of two: a quantile is at most 7 % too high.
// The maximum is exact. The zero value is empty.
type Histogram struct {
	buckets [1024]int64
	n       int64
	max     time.Duration
}

// Add counts d.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	h.buckets[bucket(uint64(d))]++
	h.n++
	h.max = max(h.max, d)
}

// N is the number of durations.
func (h *Histogram) N() int64 { return h.n }

// Max is the longest duration.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile returns an upper bound of the q-th quantile, 0 when empty.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := int64(q * float64(h.n))
	for i, n := range h.buckets {
		if rank -= n; rank < 0 {
			return min(time.Duration(upper(i)), h.max)
		}
	}
	return h.max
}

func bucket(v uint64) int {
	if v < 16 {
		return int(v)
	}
	exp := bits.Len64(v) - 5
	return 16*exp + int(v>>exp)
}

// upper is the largest value of bucket i.
func upper(i int) uint64 {
	if i < 32 {
		return uint64(i)
	}
	exp := i/16 - 1
	return (uint64(i%16+16)+1)<<exp - 1
}
