package worker_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/pkg/worker"
)

func holds(context.Context) error { return nil }

func never(ctx context.Context) error {
	<-ctx.Done()
	return errors.New("nothing was heard")
}

func TestAwaitReady(t *testing.T) {
	p := start(t, "until")
	p.up(t, 1)
	var checked bool
	err := worker.AwaitReady(t.Context(), p.Process, []worker.Condition{{"one", holds}, {"two", holds}}, 10*time.Millisecond,
		func() error { checked = true; return nil })
	if err != nil || !checked {
		t.Errorf("%v, checked again %t", err, checked)
	}
	if err := worker.AwaitReady(t.Context(), p.Process, nil, 0, nil); err != nil {
		t.Error(err)
	}
}

func TestAwaitReadyNamesWhatIsMissing(t *testing.T) {
	p := start(t, "until")
	p.up(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := worker.AwaitReady(ctx, p.Process, []worker.Condition{{"listening", holds}, {"notify", never}}, 0, nil)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "notify (nothing was heard)") || strings.Contains(err.Error(), "listening") {
		t.Error(err)
	}
	err = worker.AwaitReady(ctx, p.Process, nil, time.Hour, nil)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1h") {
		t.Error(err)
	}
}

func TestAwaitReadyFailsAtOnce(t *testing.T) {
	conditions := func(f func(context.Context) error) []worker.Condition {
		return []worker.Condition{{"notify", never}, {"other", f}}
	}
	t.Run("exit", func(t *testing.T) {
		p := start(t, "exit=3")
		err := worker.AwaitReady(t.Context(), p.Process, conditions(never), 0, nil)
		if !errors.Is(err, worker.ErrExited) || !strings.Contains(err.Error(), "exit code 3") {
			t.Error(err)
		}
	})
	t.Run("exit explains the failure of a condition", func(t *testing.T) {
		p := start(t, "kill")
		err := worker.AwaitReady(t.Context(), p.Process, conditions(func(context.Context) error {
			<-p.Done()
			return errors.New("connection refused")
		}), 0, nil)
		if !errors.Is(err, worker.ErrExited) || !strings.Contains(err.Error(), "killed by SIGKILL") {
			t.Error(err)
		}
	})
	t.Run("impossible", func(t *testing.T) {
		p := start(t, "until")
		p.up(t, 1)
		err := worker.AwaitReady(t.Context(), p.Process, conditions(func(context.Context) error { return os.ErrPermission }), 0, nil)
		if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "other") {
			t.Error(err)
		}
	})
	t.Run("not stable", func(t *testing.T) {
		p := start(t, "until")
		p.up(t, 1)
		err := worker.AwaitReady(t.Context(), p.Process, nil, time.Millisecond, func() error { return os.ErrClosed })
		if !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
		p.Signal(syscall.SIGTERM)
		err = worker.AwaitReady(t.Context(), p.Process, nil, time.Hour, nil)
		if !errors.Is(err, worker.ErrExited) || !strings.Contains(err.Error(), "exit code 0") {
			t.Error(err)
		}
	})
}

func TestConditions(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	old := filepath.Join(dir, "old")
	if err := os.WriteFile(old, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(old, now.Add(-time.Hour), now.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	counter := []string{"/bin/sh", "-c", `n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) >n; echo try $n >&2; test $n = 2`}
	for _, tt := range []struct {
		condition worker.Condition
		want      string // "" means that it holds
	}{
		{worker.FileReady(file, now.Add(-time.Second)), ""},
		{worker.FileReady(old, now), "old file"},
		{worker.FileReady(filepath.Join(dir, "none"), now), "no such file"},
		{worker.DelayReady(time.Millisecond), ""},
		{worker.DelayReady(time.Hour), "1h0m0s"},
		{worker.CommandReady(counter, []string{"PATH=/usr/bin:/bin"}, dir), ""},
		{worker.CommandReady([]string{"/bin/sh", "-c", "echo not yet; exit 4"}, nil, ""), "exit code 4: not yet"},
		{worker.CommandReady([]string{"/no/such"}, nil, ""), "no such file"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		if tt.want != "" {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
		}
		err := tt.condition.Wait(ctx)
		cancel()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.condition.Name, err, tt.want)
		}
	}
}

func TestFileReadyWhenItAppears(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	result := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	condition := worker.FileReady(file, time.Now())
	go func() { result <- condition.Wait(ctx) }()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
}
