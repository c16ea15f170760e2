//go:build vm

package matrix

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/test/load"
)

func (r *rig) clients() map[load.Class]int {
	c := map[load.Class]int{load.New: perClass, load.Late: perClass}
	if !r.s.noKeep {
		c[load.Keep] = perClass
	}
	if r.s.udp != nil {
		c[load.UDP] = perClass
	}
	if r.s.slow {
		c[load.Slow] = 2
	}
	return c
}

// measure replaces the server under load with the preset's settings, and then without divert, settling and idle wait.
func (r *rig) measure(quick bool) {
	r.t.Helper()
	reloads := 10
	if quick {
		reloads = 3
	}
	r.start()
	r.row.With = r.replace(reloads)
	r.judge(r.row.With)
	drain := r.configured.Drain
	if quick || drain.Divert == config.DivertNone && drain.Idle == 0 {
		return
	}
	r.stop()
	r.WriteFile(r.config(), bare(r.toml))
	r.start()
	r.row.Without = r.replace(reloads)
	r.stop()
	r.WriteFile(r.config(), r.toml)
	r.start()
}

var drainKeys = regexp.MustCompile(`(?m)^(divert|settle|idle)\s*=.*\n`)

// bare is a configuration without what the supervisor adds to the drain.
func bare(toml string) string {
	toml = drainKeys.ReplaceAllString(toml, "")
	const plain = "[drain]\ndivert = \"none\"\nsettle = \"0s\"\n"
	if !strings.Contains(toml, "[drain]\n") {
		return toml + "\n" + plain
	}
	return strings.Replace(toml, "[drain]\n", plain, 1)
}

// replace reloads so many times under load.
func (r *rig) replace(reloads int) *measured {
	r.t.Helper()
	first := r.status().Generations[0].N
	m := &timed{measured: &measured{Reloads: reloads, Classes: map[load.Class]counted{}}}
	result := r.under(r.clients(), func() {
		for i := range reloads {
			began := time.Now()
			if res := r.TrySystemctl("reload", r.unit); res.Code != 0 {
				r.t.Fatalf("reload %d: exit %d: %s\n%s", i+1, res.Code, res.Stderr, r.tail())
			}
			r.drained()
			m.drain = append(m.drain, time.Since(began))
			m.add(r.status())
		}
	})
	r.t.Logf("%s\n%s", m, result)
	if last := r.status().Generations[0].N; last != first+reloads {
		r.t.Errorf("%d generations after %d reloads: a worker crashed\n%s", last-first, reloads, r.tail())
	}
	for class, count := range result.Classes {
		m.Classes[class] = counted{Requests: count.Requests(), Failed: count.Failures(), Idle: count.Kinds[load.Idle], Kinds: kinds(count)}
		if count.Requests() < int64(reloads) {
			r.t.Errorf("only %d requests of class %s", count.Requests(), class)
		}
	}
	m.finish()
	return m.measured
}

// kinds says what the failed requests met.
func kinds(c *load.Count) string {
	var words []string
	for k, n := range c.Kinds {
		if kind := load.Kind(k); n > 0 && kind != load.OK && kind != load.Idle {
			words = append(words, fmt.Sprintf("%d %s", n, kind))
		}
	}
	return strings.Join(words, ", ")
}

// judge demands that nothing was lost, and not by luck: what should divert did.
func (r *rig) judge(m *measured) {
	r.t.Helper()
	want := config.DivertSteer
	if r.s.network() == "unix" {
		want = config.DivertFence
	}
	if d := r.configured.Drain.Divert; d == config.DivertNone || d == config.DivertAuto && r.configured.Handoff.Fetch == config.FetchGetsocks {
		want = config.DivertNone
	}
	if m.Divert != want {
		r.t.Errorf("divert %q, want %q", m.Divert, want)
	}
	for _, class := range slices.Sorted(maps.Keys(m.Classes)) {
		c := m.Classes[class]
		lost := c.Failed
		if r.s.keepLossless {
			lost += c.Idle
		}
		if class == load.Keep && r.s.abrupt {
			lost = 0
		}
		if lost > 0 {
			r.t.Errorf("%s: %d of %d lost with the preset's settings (%s)", class, lost, c.Requests, c.Kinds)
		}
	}
}
