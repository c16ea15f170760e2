package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/text"
)

var checkCommand = command{
	name:    "check",
	summary: "show all mistakes of configuration files at once",
	usage: `usage: supervisor check FILE|NAME...

Reads each configuration file as run and reload do, and prints every mistake with its line. NAME stands for
/etc/supervisor/NAME.toml. It does not run worker.check.

exit codes: 0 no mistakes, 1 there are some

examples:
  supervisor check web
  supervisor check ./web.toml ./api.toml
`,
	prepare: func(*flags) func(*env, []string) error { return check },
}

func check(e *env, operands []string) error {
	if len(operands) == 0 {
		return usageError{"a configuration file is missing", "supervisor check NAME, or a path"}
	}
	failed := false
	for _, operand := range operands {
		c, err := config.Load(configPath(operand))
		var mistakes config.Errors
		switch {
		case err == nil:
			for _, w := range c.Warnings {
				fmt.Fprintf(e.stderr, "supervisor: warning: %s\n", text.Printable(w.Error()))
			}
			fmt.Fprintf(e.stdout, "%s: ok\n", text.Printable(c.Path))
		case errors.As(err, &mistakes):
			failed = true
			for _, m := range mistakes {
				e.fail(m.Error(), "")
			}
		default:
			failed = true
			e.fail(err.Error(), missingConfig(operand, err))
		}
	}
	if failed {
		return errReported
	}
	return nil
}

// missingConfig is the hint for a file that is not there.
func missingConfig(operand string, err error) string {
	if !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	path := configPath(operand)
	there, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*.toml"))
	for i := range there {
		there[i] = strings.TrimSuffix(filepath.Base(there[i]), ".toml")
	}
	if path != operand { // a name
		return suggest(operand, there, "supervisor init PRESET "+operand+" writes it; a file elsewhere is named by its path")
	}
	if filepath.Base(path) == path {
		return "a NAME without .toml stands for /etc/supervisor/NAME.toml"
	}
	return ""
}

// configPath tells a path from the name of a service.
func configPath(operand string) string {
	if strings.ContainsRune(operand, '/') || strings.HasSuffix(operand, ".toml") {
		return operand
	}
	return filepath.Join("/etc/supervisor", operand+".toml")
}
