package config

import (
	"syscall"
	"time"
)

func (t *table) drain(r *Drain) {
	*r = Drain{
		Divert: DivertAuto, Settle: 500 * time.Millisecond, Signal: syscall.SIGTERM, Timeout: 30 * time.Second,
		Escalate: []EscalateStep{{Signal: syscall.SIGTERM}, {Wait: 5 * time.Second}, {Signal: syscall.SIGKILL}},
		Success:  []ExitStatus{{Code: 0}, {Signal: syscall.SIGTERM}, {Code: 143}},
	}
	t.choice("divert", &r.Divert, DivertAuto, DivertSteer, DivertFence, DivertNone)
	t.duration("settle", &r.Settle, 0)
	t.duration("idle", &r.Idle, 0)
	if v, ok := t.get("signal"); ok {
		sig, err := asSignal(v)
		if err != nil {
			t.fail("signal", err)
		}
		r.Signal = sig
	}
	t.command("command", &r.Command)
	if t.has("command") {
		r.Signal = 0
		if t.has("signal") {
			t.fail("command", bad("the command is run in the place of the signal", "excludes drain.signal"))
		}
	}
	t.duration("timeout", &r.Timeout, 0)
	t.escalate(r)
	t.success(r)
}

func (t *table) escalate(r *Drain) {
	const example = `such as ["SIGTERM", "5s", "SIGKILL"]`
	var steps []EscalateStep
	sound := true
	t.list("escalate", func(_ int, v any) error {
		step, err := asStep(v)
		sound = sound && err == nil
		steps = append(steps, step)
		return err
	})
	if steps == nil || !sound {
		return
	}
	if steps[len(steps)-1].Signal != syscall.SIGKILL {
		t.fail("escalate", bad(example, "does not end with SIGKILL, which alone ends every worker"))
	}
	r.Escalate = steps
}

// asStep reads a signal or, where it begins like a number, a wait.
func asStep(v any) (EscalateStep, error) {
	if _, ok := v.(string); !ok {
		return EscalateStep{}, bad(`write "SIGTERM" or "5s"`, "must be a signal or a duration, not %s", kind(v))
	}
	s, err := asText(v)
	if err != nil {
		return EscalateStep{}, err
	}
	if s == "" || (s[0] != '-' && s[0] != '+' && s[0] != '.' && (s[0] < '0' || s[0] > '9')) {
		sig, err := parseSignal(s)
		return EscalateStep{Signal: sig}, err
	}
	wait, err := parseDuration(s)
	if err == nil && wait == 0 {
		err = bad("leave it out", "%q is no wait", s)
	}
	return EscalateStep{Wait: wait}, err
}

func (t *table) success(r *Drain) {
	var list []ExitStatus
	t.list("success", func(_ int, v any) error {
		status, err := asStatus(v)
		list = append(list, status)
		return err
	})
	if list != nil {
		r.Success = list
	}
}

func asStatus(v any) (ExitStatus, error) {
	switch v := v.(type) {
	case int64:
		if v < 0 || v > 255 {
			return ExitStatus{}, bad("0 to 255", "%d is no exit code", v)
		}
		return ExitStatus{Code: int(v)}, nil
	case string:
		if isNumber(v) {
			return ExitStatus{}, bad("write "+v+" without quotes", "exit code %q is a string", v)
		}
		sig, err := parseSignal(v)
		return ExitStatus{Signal: sig}, err
	}
	return ExitStatus{}, bad(`write 0 or "SIGTERM"`, "must be an exit code or a signal, not %s", kind(v))
}
