package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/supervisor"
)

var runCommand = command{
	name:    "run",
	summary: "the daemon of one service (ExecStart)",
	usage: `usage: supervisor run NAME [--config FILE]

Holds the sockets of the service, keeps one worker serving on them, and replaces
it when asked to (systemctl reload, SIGHUP or SIGUSR2). Started by systemd it
adopts the workers and sockets that an earlier supervisor left.

flags:
  --config FILE       in the place of /etc/supervisor/NAME.toml; NAME is the file's name, and may be left out then
  --runtime-dir DIR   in the place of /run/supervisor (or set SUPERVISOR_RUNTIME_DIR)

signals: SIGHUP and SIGUSR2 reload, SIGTERM and SIGINT drain and stop (twice: at once)

examples:
  supervisor run web
  supervisor run --config ./web.toml --runtime-dir /tmp/supervisor
`,
	prepare: func(f *flags) func(*env, []string) error {
		var file string
		f.text("--config", &file)
		return func(e *env, operands []string) error { return e.daemon(operands, file) }
	},
}

func (e *env) daemon(operands []string, file string) error {
	called := strings.TrimSuffix(filepath.Base(file), ".toml")
	if file != "" && len(operands) == 0 {
		operands = []string{called}
	}
	if len(operands) == 0 {
		return usageError{"the name of a service is missing", "supervisor run NAME, or --config FILE"}
	}
	name, err := e.oneName(operands)
	if err != nil {
		return err
	}
	if file != "" && name != called {
		return usageError{fmt.Sprintf("NAME is %s, but %s is the configuration of %s", name, file, called), "with --config leave NAME out, or name the file " + name + ".toml"}
	}
	hint := "supervisor check " + file
	if file == "" {
		hint += name
		file = filepath.Join("/etc/supervisor", name+".toml")
	}
	// The daemon changes its directory for no worker; relative paths would break with the next exec.
	if file, err = filepath.Abs(file); err != nil {
		return err
	}
	runtime, err := filepath.Abs(filepath.Join(e.runtimeDir, name))
	if err != nil {
		return err
	}
	err = supervisor.Run(context.Background(), supervisor.Options{
		Name: name, ConfigPath: file, RuntimeDir: runtime, Version: programVersion(), Log: slog.New(newLogHandler(e.stderr)),
	})
	var failed *supervisor.StartError
	if errors.As(err, &failed) {
		return hinted{err, failed.Hint}
	}
	var mistakes config.Errors
	if errors.As(err, &mistakes) {
		return hinted{err, hint + " shows the same without starting anything"}
	}
	return err
}

// preflight is what a running supervisor starts a new binary with before it makes it its own (see reexec).
func preflight(e *env, args []string) int {
	if len(args) != 3 {
		return e.report(usageError{"preflight is for the supervisor itself", ""})
	}
	return e.report(supervisor.Preflight(args[0], args[1], args[2]))
}
