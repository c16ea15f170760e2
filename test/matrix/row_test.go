//go:build vm

package matrix

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/control"
)

func newRow(r *rig) *row {
	cfg := r.configured
	ready := strings.Join(cfg.Ready.When, ", ")
	if cfg.Ready.Stable > 0 {
		ready += ", stable " + cfg.Ready.Stable.String()
	}
	drain := "command"
	if len(cfg.Drain.Command) == 0 {
		drain = signalName(cfg.Drain)
	}
	if cfg.Drain.Idle > 0 {
		drain += ", idle " + cfg.Drain.Idle.String()
	}
	order := ""
	if cfg.Handoff.Order != config.OrderStartFirst {
		order = cfg.Handoff.Order
	}
	w := &row{Name: r.s.name, Version: r.version(), Preset: r.s.preset,
		Convention: strings.Join(cfg.Worker.Conventions, ", "), Ready: ready, Drain: drain, Order: order}
	w.describe(r.s)
	return w
}

// describe sets what is said about a server and not measured.
func (r *row) describe(s *server) {
	r.Title, r.Note, r.Source = cmp.Or(s.title, s.name), s.note, s.source
	if s.source == "" && !s.own && !strings.HasPrefix(s.version, "=") {
		r.Source = "Debian's " + s.version
	}
}

func signalName(d config.Drain) string {
	switch d.Signal {
	case 1:
		return "HUP"
	case 2:
		return "INT"
	case 3:
		return "QUIT"
	case 10:
		return "USR1"
	case 12:
		return "USR2"
	case 15:
		return "TERM"
	case 28:
		return "WINCH"
	}
	return fmt.Sprint(int(d.Signal))
}

// version is the upstream part of a Debian package's version.
func (r *rig) version() string {
	if text, ok := strings.CutPrefix(r.s.version, "="); ok {
		return text
	}
	text := r.Run("dpkg-query", "-W", "-f", "${Version}", r.s.version)
	if _, rest, ok := strings.Cut(text, ":"); ok {
		text = rest
	}
	if i := strings.LastIndex(text, "-"); i > 0 {
		text = text[:i]
	}
	text, _, _ = strings.Cut(text, "+")
	return text
}

// keep takes over what was measured before, which must have been with the same settings.
func (r *row) keep(t *testing.T) {
	t.Helper()
	for _, old := range rows(t) {
		if old.Name == r.Name && old.Convention == r.Convention && old.Ready == r.Ready && old.Drain == r.Drain && old.Order == r.Order {
			r.Version, r.With, r.Without = old.Version, old.With, old.Without
			return
		}
	}
	t.Fatalf("%s was not measured with the settings that it has now", r.Name)
}

// timed is measured while the times are still collected.
type timed struct {
	*measured
	reload, ready, drain []time.Duration
	used                 []string
}

// add takes the times of the last handoff and the divert of its old generation.
func (m *timed) add(s control.Status) {
	if len(s.Handoffs) == 0 {
		return
	}
	h := s.Handoffs[0]
	m.reload = append(m.reload, time.Duration(h.Took))
	for _, step := range h.Steps {
		if step.Name == "ready" {
			m.ready = append(m.ready, time.Duration(step.Took))
		}
	}
	for _, g := range s.Generations {
		if g.N == h.From && !slices.Contains(m.used, g.Divert) {
			m.used = append(m.used, g.Divert)
		}
	}
}

func (m *timed) finish() {
	m.ReloadMS, m.ReadyMS, m.DrainedMS = median(m.reload), median(m.ready), median(m.drain)
	slices.Sort(m.used)
	m.Divert = strings.Join(m.used, "/")
}

func (m *timed) String() string {
	m.finish()
	return fmt.Sprintf("divert %s, reload %.0f ms (ready %.0f ms), drained after %.0f ms", m.Divert, m.ReloadMS, m.ReadyMS, m.DrainedMS)
}

// median is in milliseconds.
func median(list []time.Duration) float64 {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return float64(sorted[len(sorted)/2].Round(100*time.Microsecond)) / 1e6
}

// save puts a row into docs/matrix.json, in the order of the servers, and describes the others anew; nil does only that.
func (r *row) save(t *testing.T) {
	t.Helper()
	if r != nil && r.With == nil {
		return
	}
	f, err := os.OpenFile(dataFile, os.O_CREATE|os.O_RDWR, 0o644)
	if err == nil {
		defer f.Close()
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX) // several runs may share the work
	}
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.MarshalIndent(r.among(rows(t)), "", " ")
	if err == nil {
		err = os.WriteFile(dataFile, append(data, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// among puts r in its place.
func (r *row) among(old []*row) (list []*row) {
	for _, s := range servers {
		if r != nil && s.name == r.Name {
			list = append(list, r)
		} else if i := slices.IndexFunc(old, func(o *row) bool { return o.Name == s.name }); i >= 0 {
			old[i].describe(s)
			list = append(list, old[i])
		}
	}
	return list
}
