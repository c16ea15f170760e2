package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/internal/text"
)

// command is one subcommand.
type command struct {
	name, summary string
	// usage is the whole help text.
	usage string
	// prepare declares the flags and returns what to do with the operands once they are parsed.
	prepare func(f *flags) func(e *env, operands []string) error
}

// env is what a command works with.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	runtimeDir     string
}

func (c command) invoke(e *env, args []string) error {
	f := &flags{}
	f.text("--runtime-dir", &e.runtimeDir)
	action := c.prepare(f)
	operands, err := f.parse(args)
	if errors.Is(err, errHelp) {
		fmt.Fprint(e.stdout, c.usage)
		return nil
	}
	if err != nil {
		return err
	}
	if e.runtimeDir == "" {
		e.runtimeDir = os.Getenv("SUPERVISOR_RUNTIME_DIR")
	}
	if e.runtimeDir == "" {
		e.runtimeDir = "/run/supervisor"
	}
	return action(e, operands)
}

// flags are the flags of a command. They may stand before, between and after the operands; "--" ends them.
type flags struct {
	switches map[string]*bool
	texts    map[string]*string
}

// toggle declares a flag without a value.
func (f *flags) toggle(name string, target *bool) {
	if f.switches == nil {
		f.switches = map[string]*bool{}
	}
	f.switches[name] = target
}

// text declares a flag with a value.
func (f *flags) text(name string, target *string) {
	if f.texts == nil {
		f.texts = map[string]*string{}
	}
	f.texts[name] = target
}

var errHelp = errors.New("help was asked for")

func (f *flags) parse(args []string) (operands []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		name, value, hasValue := strings.Cut(arg, "=")
		switch {
		case arg == "-h" || arg == "--help" || arg == "-help":
			return nil, errHelp
		case arg == "--":
			return append(operands, args...), nil
		case !strings.HasPrefix(arg, "-") || arg == "-":
			operands = append(operands, arg)
		case f.switches[name] != nil:
			if hasValue {
				return nil, usageError{name + " takes no value", ""}
			}
			*f.switches[name] = true
		case f.texts[name] != nil:
			if !hasValue {
				if len(args) == 0 {
					return nil, usageError{name + " needs a value", ""}
				}
				value, args = args[0], args[1:]
			}
			*f.texts[name] = value
		default:
			known := slices.Concat(slices.Sorted(maps.Keys(f.switches)), slices.Sorted(maps.Keys(f.texts)))
			return nil, usageError{fmt.Sprintf("unknown flag %q", name), suggest(name, known, "known flags are "+strings.Join(known, ", "))}
		}
	}
	return operands, nil
}

// usageError is a wrong command line.
type usageError struct{ text, hint string }

func (e usageError) Error() string { return e.text }

// hinted is an error with advice.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// errReported is a failure whose message is out already.
var errReported = errors.New("reported")

// report prints what is to be said about err, and returns the exit code.
func (e *env) report(err error) int {
	var wrong usageError
	var h hinted
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errReported):
		return exitFailed
	case errors.As(err, &wrong):
		e.fail(wrong.text, wrong.hint)
		return exitUsage
	case errors.As(err, &h):
		e.fail(err.Error(), h.hint)
	default:
		e.fail(err.Error(), "")
	}
	if errors.Is(err, control.ErrNotRunning) {
		return exitNotRunning
	}
	return exitFailed
}

// fail prints an error and a hint, which may be empty.
func (e *env) fail(message, hint string) {
	for line := range strings.Lines(message) {
		fmt.Fprintf(e.stderr, "supervisor: error: %s\n", text.Printable(strings.TrimSuffix(line, "\n")))
	}
	if hint != "" {
		fmt.Fprintf(e.stderr, "supervisor: hint: %s\n", text.Printable(hint))
	}
}
