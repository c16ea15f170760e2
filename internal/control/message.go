package control

import (
	"encoding/json"
	"fmt"
	"time"
)

// Version is that of the messages in this package.
const Version = 1

// The operations of a [Request].
const (
	OpReload = "reload"
	OpStatus = "status"
	OpFDs    = "fds"
	OpReexec = "reexec"
)

// Request is what a client asks.
type Request struct {
	V  int    `json:"v"`
	Op string `json:"op"`
	// Drained makes a reload return only when the old generation has ended.
	Drained bool `json:"drained,omitempty"`
}

// The types of an [Event].
const (
	TypeStep   = "step"
	TypeNote   = "note"
	TypeResult = "result"
	TypeStatus = "status"
	TypeFDs    = "fds"
	TypeError  = "error"
)

// Event is one line of an answer. Type says which one of the other fields is set.
type Event struct {
	V    int    `json:"v"`
	Type string `json:"type"`
	Step *Step  `json:"step,omitempty"`
	// Text goes with note and error (the request itself was refused).
	Text   string  `json:"text,omitempty"`
	Result *Result `json:"result,omitempty"`
	Status *Status `json:"status,omitempty"`
	FDs    *FDs    `json:"fds,omitempty"`
}

// Step is one step of a handoff that is over.
type Step struct {
	Name string   `json:"name"`
	Took Duration `json:"took_us"`
	Err  string   `json:"error,omitempty"`
	Note string   `json:"note,omitempty"`
}

// Result is how a reload or a re-execution ended.
type Result struct {
	OK bool `json:"ok"`
	// Error is one sentence: what was tried, why it failed, what still holds. Hint is what the operator may do.
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
	// Output is the last words of the worker, or of its check command.
	Output string `json:"output,omitempty"`
	// Failed is the new worker where the supervisor may not read what it last wrote; a client may.
	Failed *Failed `json:"failed,omitempty"`
	// Generation and PID are those of the worker that serves now.
	Generation int      `json:"generation,omitempty"`
	PID        int      `json:"pid,omitempty"`
	Took       Duration `json:"took_us,omitempty"`
}

// Failed is the processes of a worker that did not become ready.
type Failed struct {
	PIDs  []int     `json:"pids"`
	Since time.Time `json:"since"`
}

// Duration is a time.Duration that JSON shows as a whole number of microseconds.
type Duration time.Duration

// MarshalJSON implements [json.Marshaler].
func (d Duration) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(d).Microseconds())
}

// UnmarshalJSON implements [json.Unmarshaler].
func (d *Duration) UnmarshalJSON(data []byte) error {
	var us int64
	if err := json.Unmarshal(data, &us); err != nil {
		return err
	}
	const most = int64(1<<63-1) / int64(time.Microsecond)
	if us > most || us < -most {
		return fmt.Errorf("duration of %d microseconds is out of range", us)
	}
	*d = Duration(time.Duration(us) * time.Microsecond)
	return nil
}

// String implements [fmt.Stringer].
func (d Duration) String() string { return time.Duration(d).String() }

// ParseRequest reads one line.
func ParseRequest(line []byte) (Request, error) {
	var r Request
	if err := json.Unmarshal(line, &r); err != nil {
		return Request{}, fmt.Errorf("request is not understood: %w", err)
	}
	if r.V != Version {
		return Request{}, fmt.Errorf("the client speaks version %d of the control protocol and the supervisor version %d", r.V, Version)
	}
	switch r.Op {
	case OpReload, OpStatus, OpFDs, OpReexec:
		return r, nil
	}
	return Request{}, fmt.Errorf("unknown operation %q", r.Op)
}
