package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
)

// StateVersion is the format of the state that this binary writes. It reads this one and older ones.
const StateVersion = 1

// maxState bounds what is read of a state memfd, in bytes: ten thousand sockets need about 2 MB.
const maxState = 64 << 20

// state is what one supervisor process leaves to the next, as JSON in a sealed memfd in systemd's FD store.
type state struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	// Identity is the secret part of the marker that the workers carry.
	Identity string `json:"identity,omitempty"`
	Sequence uint64 `json:"sequence"`
	// Generation is the last number given, Slot the last serving generation's, Serving the number of the generation
	// that serves or served last.
	Generation int `json:"generation"`
	Slot       int `json:"slot"`
	Serving    int `json:"serving"`
	// Since is when the service was started, Bundle the number of the bundle in the store.
	Since  time.Time `json:"since"`
	Bundle int       `json:"bundle,omitempty"`
	// FailedStarts counts the starts of the service since a worker last served.
	FailedStarts int `json:"failed_starts,omitempty"`
	// HandoffWanted says that the next supervisor hands off right after adoption: the service was restarted.
	HandoffWanted bool              `json:"handoff_wanted,omitempty"`
	Generations   []generationState `json:"generations"`
	Sockets       []sockets.Meta    `json:"sockets"`
	// Pushed is who pushed what is no listener, by entry in the store.
	Pushed   map[string]sockets.Claim `json:"pushed"`
	Handoffs []*handoff.Trace         `json:"handoffs,omitempty"`
	// Configs holds the text of every configuration that a listed generation was started with, by SHA-256.
	Configs map[string]string `json:"configs"`
}

type generationState struct {
	N     int           `json:"n"`
	Slot  int           `json:"slot"`
	State handoff.State `json:"state"`
	Since time.Time     `json:"since"`
	// Began is the same in nanoseconds of CLOCK_MONOTONIC, 0 in the state of a supervisor that did not note it.
	Began time.Duration `json:"began,omitempty"`
	PID   int           `json:"pid,omitempty"`
	// StartTime is field 22 of /proc/PID/stat: with the pid it names one process of this boot.
	StartTime uint64 `json:"start_time,omitempty"`
	Config    string `json:"config"`
	Divert    string `json:"divert,omitempty"`
	Phase     string `json:"phase,omitempty"`
	// Signalling says that the drain signal is about to be sent, Signalled that it is out. A supervisor that did not know
	// the first wrote the second too early.
	Signalling bool `json:"signalling,omitempty"`
	Signalled  bool `json:"signalled,omitempty"`
	Crashed    bool `json:"crashed,omitempty"`
	// Unpushed are the names that it does not want to have kept, once it serves.
	Unpushed []string `json:"unpushed,omitempty"`
	// Deadline is when escalation begins or began, in nanoseconds of CLOCK_MONOTONIC.
	Deadline time.Duration `json:"deadline,omitempty"`
	Status   string        `json:"status,omitempty"`
	Outcome  string        `json:"outcome,omitempty"`
	Ended    time.Time     `json:"ended,omitzero"`
}

// snapshot is the state as it is now.
func (d *Daemon) snapshot() *state {
	s := &state{
		Version: StateVersion, Name: d.opts.Name, Identity: d.identity, Generation: d.lastN, Slot: d.slot,
		Since: d.since, Bundle: d.keeper.bundle, FailedStarts: d.failedStarts,
		HandoffWanted: d.keeper.handoffWanted, Handoffs: d.traces, Configs: map[string]string{}, Pushed: map[string]sockets.Claim{},
	}
	for _, g := range d.gens {
		gs := generationState{
			N: g.N, Slot: g.Slot, State: g.State, Since: g.Since, Began: g.Began, PID: g.PID(), Divert: g.Divert, Phase: g.Phase,
			Signalling: g.Signalling, Signalled: g.Signalled, Crashed: g.Crashed, Status: g.Status, Outcome: g.Outcome, Ended: g.Ended,
			Unpushed: g.Unpushed,
		}
		if g.Process != nil {
			gs.StartTime = g.Process.StartTime()
		}
		if !g.Deadline.IsZero() {
			gs.Deadline = sys.MonotonicNow() + time.Until(g.Deadline)
		}
		if g.Config != nil {
			gs.Config = g.Config.Sum
			// A gone generation needs its configuration only if it is the last that served.
			if g.State != handoff.Gone || g.N == d.lastServed() {
				s.Configs[g.Config.Sum] = g.Config.Text
			}
		}
		s.Generations = append(s.Generations, gs)
	}
	s.Serving = d.lastServed()
	for _, held := range d.held.Ordered(nil) {
		if held.Origin == sockets.Unit {
			if mode, err := sys.Nonblock(held.FD.Num()); err == nil {
				held.LastNonblock = &mode
			}
		}
		s.Sockets = append(s.Sockets, held.Meta)
	}
	for _, p := range d.pushed {
		s.Pushed[p.entry()] = p.Claim
	}
	return s
}

// lastServed is the number of the generation that serves or served last.
func (d *Daemon) lastServed() int {
	if d.serving != nil {
		return d.serving.N
	}
	return d.keeper.lastServed
}

func (s *state) encode() ([]byte, error) { return json.Marshal(s) }

// decodeState reads and checks one state.
func decodeState(data []byte, name string) (*state, error) {
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return nil, fmt.Errorf("state does not parse: %w", err)
	}
	if version.Version < 1 || version.Version > StateVersion {
		return nil, fmt.Errorf("state has format %d, this supervisor knows up to %d", version.Version, StateVersion)
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("state does not parse: %w", err)
	}
	if s.Name != name {
		return nil, fmt.Errorf("state is of service %q", s.Name)
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return &s, nil
}

// check finds what no supervisor has written.
func (s *state) check() error {
	if s.Slot != 0 && s.Slot != 1 || s.Generation < 0 || s.Bundle < 0 || slices.Contains(s.Handoffs, nil) {
		return errors.New("state contradicts itself")
	}
	seen := map[int]bool{}
	for _, g := range s.Generations {
		switch g.State {
		case handoff.Starting, handoff.Serving, handoff.Draining, handoff.Gone:
		default:
			return fmt.Errorf("state has generation %d as %q", g.N, g.State)
		}
		if g.N < 1 || g.N > s.Generation || g.Slot != 0 && g.Slot != 1 || seen[g.N] {
			return fmt.Errorf("state contradicts itself about generation %d", g.N)
		}
		seen[g.N] = true
	}
	return nil
}

// config returns the configuration that generation n was started with, or nil.
func (s *state) config(n int, opts Options) *config.Config {
	for _, g := range s.Generations {
		if g.N != n {
			continue
		}
		text, ok := s.Configs[g.Config]
		if !ok {
			return nil
		}
		cfg, err := config.Recall(opts.Name, opts.ConfigPath, []byte(text))
		if err != nil {
			return nil
		}
		return cfg
	}
	return nil
}

// sockets returns what the state, which may be nil, knows of sockets, by identity.
func (s *state) sockets() map[uint64]sockets.Meta {
	known := map[uint64]sockets.Meta{}
	if s != nil {
		for _, m := range s.Sockets {
			known[m.Cookie] = m
		}
	}
	return known
}

// unknownClaim is that of what was pushed under a supervisor that did not note by whom: everybody may replace it.
var unknownClaim = sockets.Claim{By: 1}

// pushed returns what the state, which may be nil, knows of pushed entries. One that was stored after it was written is of
// the generation that was starting, if there was one.
func (s *state) pushed() func(entry string) sockets.Claim {
	return func(entry string) sockets.Claim {
		if s == nil || s.Pushed == nil {
			return unknownClaim
		}
		if c, ok := s.Pushed[entry]; ok {
			return c
		}
		if n := s.starting(); n != 0 {
			return sockets.Claim{Next: n}
		}
		return unknownClaim
	}
}

// starting is the number of the generation that was starting when the state, which may be nil, was written, or 0.
func (s *state) starting() int {
	if s != nil {
		for _, g := range s.Generations {
			if g.State == handoff.Starting {
				return g.N
			}
		}
	}
	return 0
}
