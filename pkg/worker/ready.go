package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// ErrExited says that the worker ended before it was ready; its status is in the error that wraps it, and in [Process.Exit].
var ErrExited = errors.New("the worker ended before it was ready")

// Condition is one proof of readiness.
type Condition struct {
	Name string
	// Wait returns nil when the condition holds. When ctx ends it must return, with an error that says what is
	// missing; an error at any other time means that the condition can never hold.
	Wait func(ctx context.Context) error
}

// AwaitReady returns nil once all conditions hold and, where stable is not 0, p lives and still, unless nil, returns
// nil that much later. It fails at once when p ends ([ErrExited]) or a condition becomes impossible; when ctx ends first, the error
// wraps ctx's and names every condition that was still missing. No condition runs any more when it returns.
func AwaitReady(ctx context.Context, p *Process, conditions []Condition, stable time.Duration, still func() error) error {
	if err := awaitAll(ctx, p, conditions); err != nil {
		return err
	}
	if stable <= 0 {
		return nil
	}
	timer := time.NewTimer(stable)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.Done():
		return fmt.Errorf("the worker was ready, but not for %s: %w: %s", stable, ErrExited, ExitString(p.Exit()))
	case <-ctx.Done():
		return fmt.Errorf("the worker was ready, but the time was over before it had been so for %s: %w", stable, context.Cause(ctx))
	}
	if still == nil {
		return nil
	}
	if err := still(); err != nil {
		return fmt.Errorf("the worker was ready, but not for %s: %w", stable, err)
	}
	return nil
}

// awaitAll waits for every condition at once.
func awaitAll(ctx context.Context, p *Process, conditions []Condition) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		i   int
		err error
	}
	results := make(chan result, len(conditions))
	for i, c := range conditions {
		go func() { results <- result{i, c.Wait(inner)} }()
	}
	var failed error
	var missing []string
	exited := p.Done()
	for range conditions {
		for waiting := true; waiting; {
			select {
			case r := <-results:
				waiting = false
				switch {
				case r.err == nil:
				case inner.Err() != nil:
					missing = append(missing, fmt.Sprintf("%s (%v)", conditions[r.i].Name, r.err))
				case failed == nil:
					failed = fmt.Errorf("the worker cannot become ready: %s: %w", conditions[r.i].Name, r.err)
					cancel()
				}
			case <-exited:
				exited = nil
				cancel()
			}
		}
	}
	select {
	case <-p.Done(): // the end of the worker explains every other failure
		return fmt.Errorf("%w: %s", ErrExited, ExitString(p.Exit()))
	default:
	}
	if failed == nil && len(missing) > 0 {
		return fmt.Errorf("the worker is not ready, still missing %s: %w", strings.Join(missing, ", "), context.Cause(ctx))
	}
	return failed
}

// poll calls try until it returns nil, or ctx ends, and returns the last error.
func poll(ctx context.Context, every time.Duration, try func() error) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	err := errors.New("not tried yet")
	for {
		select {
		case <-ctx.Done():
			return err
		case <-timer.C:
		}
		if next := try(); next == nil {
			return nil
		} else if ctx.Err() == nil {
			err = next // what an attempt says that was cut off tells nothing
		}
		timer.Reset(every)
	}
}

// CommandReady holds when the command exits with code 0. It is run again 100 ms after each failure, and what is left
// of it is killed when the waiting ends.
func CommandReady(argv, env []string, dir string) Condition {
	return Condition{Name: "command", Wait: func(ctx context.Context) error {
		return poll(ctx, 100*time.Millisecond, func() error {
			words, err := Run(ctx, Command{Argv: argv, Env: env, Dir: dir})
			if err != nil && words != "" {
				err = fmt.Errorf("%w: %s", err, words[strings.LastIndexByte(words, '\n')+1:])
			}
			return err
		})
	}}
}

// FileReady holds when the file at path exists and was written after since.
func FileReady(path string, since time.Time) Condition {
	// The kernel stamps files with a clock that lags by up to one tick, at most 10 ms.
	since = since.Add(-10 * time.Millisecond)
	return Condition{Name: "file", Wait: func(ctx context.Context) error {
		return poll(ctx, 10*time.Millisecond, func() error {
			st, err := os.Stat(path)
			if err != nil {
				return err
			}
			if !writtenAfter(st.ModTime(), since, time.Now(), time.Since(since)) {
				return fmt.Errorf("%s is an old file", path)
			}
			return nil
		})
	}}
}

// writtenAfter tells whether a file of that age is new, whether or not somebody has set the clock since, which was so long
// ago.
func writtenAfter(mtime, since, now time.Time, elapsed time.Duration) bool {
	return !mtime.Before(since) || !mtime.Before(now.Add(-elapsed))
}

// DelayReady holds after d.
func DelayReady(d time.Duration) Condition {
	return Condition{Name: "delay", Wait: func(ctx context.Context) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%s are not over", d)
		}
	}}
}
