// Command supervisor reloads any server without losing a request, under systemd.
//
// `supervisor run NAME` is the daemon of one service; the other subcommands talk to it over its control socket, or
// work on their own (check, fetch, init, version). `supervisor help` says more.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/8265a91a/supervisor/pkg/activation"
)

// Exit codes.
const (
	exitDone       = 0
	exitFailed     = 1
	exitUsage      = 2
	exitNotRunning = 3
)

func main() {
	// Between fork and exec of a worker nothing else may happen.
	if len(os.Args) > 1 && os.Args[1] == activation.ShimCommand {
		os.Exit(shim(os.Args[2:]))
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func shim(args []string) int {
	err := activation.Shim(args)
	fmt.Fprintln(os.Stderr, "supervisor: error:", err)
	if errors.Is(err, os.ErrNotExist) {
		return 127
	}
	return 126
}

// commands are the subcommands, in the order in which the usage shows them.
func commands() []command {
	return []command{
		runCommand,
		reloadCommand,
		statusCommand,
		fdsCommand,
		checkCommand,
		fetchCommand,
		reexecCommand,
		initCommand,
		sweepCommand,
		versionCommand,
	}
}

const usageHead = `supervisor reloads any server without losing a request, under systemd.

usage: supervisor COMMAND [NAME] [flags]

`

const usageTail = `
NAME is a service: the name of its configuration file /etc/supervisor/NAME.toml and of its unit supervisor@NAME.service.

flags of every command:
  --runtime-dir DIR   in the place of /run/supervisor (or set SUPERVISOR_RUNTIME_DIR)
  -h, --help          explains the command

examples:
  supervisor check web && systemctl reload supervisor@web
  supervisor reload web --drained
  supervisor status
  supervisor fds web --json

exit codes: 0 done, 1 failed, 2 wrong usage, 3 the service is not running
`

func usage() string {
	text := usageHead
	for _, c := range commands() {
		text += fmt.Sprintf("  %-9s %s\n", c.name, c.summary)
	}
	return text + usageTail
}

// run does what args ask and returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	e := &env{stdin: stdin, stdout: stdout, stderr: stderr}
	if len(args) == 0 {
		fmt.Fprint(stderr, usage())
		return exitUsage
	}
	name, rest := args[0], args[1:]
	switch name {
	case "help", "-h", "--help", "-help":
		return help(e, rest)
	case "preflight":
		return preflight(e, rest)
	case "--version", "-version":
		name = versionCommand.name
	}
	for _, c := range commands() {
		if c.name == name {
			return e.report(c.invoke(e, rest))
		}
	}
	return e.report(unknownCommand(name))
}

func help(e *env, args []string) int {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		fmt.Fprint(e.stdout, usage())
		return exitDone
	}
	for _, c := range commands() {
		if c.name == args[0] {
			fmt.Fprint(e.stdout, c.usage)
			return exitDone
		}
	}
	return e.report(unknownCommand(args[0]))
}

func unknownCommand(name string) error {
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
	}
	return usageError{fmt.Sprintf("unknown command %q", name), suggest(name, names, "supervisor help lists the commands")}
}
