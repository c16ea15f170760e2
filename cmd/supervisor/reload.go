package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/internal/supervisor"
	"github.com/8265a91a/supervisor/internal/text"
	"github.com/8265a91a/supervisor/internal/unit"
)

var reloadCommand = command{
	name:    "reload",
	summary: "replace the worker by a new generation, and say how that went",
	usage: `usage: supervisor reload NAME [--drained] [--runtime-dir DIR]

Starts a new generation of the worker, waits until it is ready, and lets the old one drain. Prints each step.
When anything fails before the new generation serves, the old one serves on and nothing has changed. Only with
order = "signal-first" it may have ended by then: connections wait, and the start is tried again.

  --drained   return only when the old generation has ended, not as soon as the new one serves

exit codes: 0 the new generation serves, 1 failed (the message says what serves), 3 the service is not running

examples:
  supervisor reload web
  systemctl reload supervisor@web      # the same, through the unit
`,
	prepare: func(f *flags) func(*env, []string) error {
		var drained bool
		f.toggle("--drained", &drained)
		return func(e *env, operands []string) error { return reload(e, operands, drained) }
	},
}

func reload(e *env, operands []string, drained bool) error {
	name, err := e.oneName(operands)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		select {
		case <-signals:
			cancel(errors.New("ended by SIGTERM; the reload goes on"))
		case <-ctx.Done():
		}
	}()
	client, err := e.dial(ctx, name)
	if err != nil {
		return err
	}
	defer client.Close()
	ours := ownUnit(client)
	if err = e.tryReload(ctx, client, name, drained); err != nil && stops(ours) {
		// systemd ends the command of ExecReload= before it stops the service, and would call the service failed if the
		// command failed. That the reload did not happen it says to whoever asked for it.
		fmt.Fprintf(e.stdout, "%s is being stopped: the reload is given up\n", name)
		return nil
	}
	return err
}

// ownUnit returns the service unit in which both this process and the daemon run: its ExecReload= is this. It is empty
// for a command of another unit, whose end says nothing about the service.
func ownUnit(client *control.Client) string {
	own := unit.Own()
	if pid, err := client.PID(); err != nil || unit.Of(pid) != own {
		return ""
	}
	return own
}

// stops tells whether a service unit is being stopped, or restarted.
func stops(name string) bool {
	if name == "" {
		return false
	}
	kind, err := unit.JobType(context.Background(), name)
	return err == nil && (kind == "stop" || strings.Contains(kind, "restart"))
}

func (e *env) tryReload(ctx context.Context, client *control.Client, name string, drained bool) error {
	result, err := client.Reload(ctx, drained, e.showEvent)
	if errors.Is(err, control.ErrLost) {
		return hinted{fmt.Errorf("reload %s: %w", name, err), "supervisor status " + name + " shows what became of it"}
	}
	if err != nil {
		return fmt.Errorf("reload %s: %w", name, err)
	}
	return e.conclude(name, result)
}

func (e *env) showEvent(event control.Event) {
	switch event.Type {
	case control.TypeStep:
		if event.Step != nil {
			fmt.Fprintln(e.stdout, stepLine(*event.Step))
		}
	case control.TypeNote:
		fmt.Fprintln(e.stdout, text.Printable(event.Text))
	}
}

func stepLine(s control.Step) string {
	line := fmt.Sprintf("%-10s %9s", s.Name, short(time.Duration(s.Took)))
	if s.Note != "" {
		line += "  " + s.Note
	}
	if s.Err != "" {
		line += "  failed: " + s.Err
	}
	return text.Printable(strings.TrimRight(line, " "))
}

// conclude prints the result, with the worker's last words where it failed.
func (e *env) conclude(name string, r control.Result) error {
	if r.OK {
		fmt.Fprintf(e.stdout, "%s: generation %d (pid %d) serves after %s\n", name, r.Generation, r.PID, short(time.Duration(r.Took)))
		return nil
	}
	e.fail(r.Error, "")
	output := r.Output
	if output == "" && r.Failed != nil && os.Geteuid() == 0 {
		output = supervisor.JournalWords(r.Failed.PIDs, r.Failed.Since)
	}
	for line := range strings.Lines(output) {
		fmt.Fprintf(e.stderr, "supervisor: output: %s\n", text.Printable(strings.TrimRight(line, "\r\n")))
	}
	hint := r.Hint
	if hint == "" && r.Output == "" {
		hint = supervisor.Hint(output, nil)
	}
	if hint != "" {
		fmt.Fprintf(e.stderr, "supervisor: hint: %s\n", text.Printable(hint))
	}
	return errReported
}
