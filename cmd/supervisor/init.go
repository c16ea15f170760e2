package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

var initCommand = command{
	name:    "init",
	summary: "write the configuration and the units of a service, from a preset",
	usage: `usage: supervisor init PRESET NAME [--listen ADDR[,ADDR...]] [--harden GRADE] [--dry-run] [--root DIR]
       supervisor init --list

Writes /etc/supervisor/NAME.toml, and what the preset needs under /etc/systemd/system: socket units and drop-ins of
supervisor@NAME.service. It overwrites nothing. Then it says what to change in the server's own configuration, what the
preset cannot promise, and the next three commands.

  --list          the presets
  --listen ADDR   in the place of the preset's address: HOST:PORT, :PORT for all, or the path of a Unix socket
  --harden GRADE  add a drop-in that hardens the service: any (for any server but sshd) or known (stricter)
  --dry-run       print the files instead of writing them
  --root DIR      write below DIR, as for the image of another system

exit codes: 0 done, 1 failed and nothing was written

examples:
  supervisor init nginx web
  supervisor init node shop --listen 127.0.0.1:3000 --harden any --dry-run
`,
	prepare: func(f *flags) func(*env, []string) error {
		var o initOptions
		f.toggle("--list", &o.list)
		f.toggle("--dry-run", &o.dryRun)
		f.text("--listen", &o.listen)
		f.text("--harden", &o.harden)
		f.text("--root", &o.root)
		return func(e *env, operands []string) error { return initialize(e, operands, o) }
	},
}

type initOptions struct {
	list, dryRun         bool
	listen, harden, root string
}

func initialize(e *env, operands []string, o initOptions) error {
	if o.list {
		if len(operands) > 0 {
			return usageError{"--list takes no arguments: " + strings.Join(operands, " "), ""}
		}
		return listPresets(e)
	}
	if len(operands) == 0 {
		return usageError{"the name of a preset is missing", "supervisor init --list"}
	}
	p, err := loadPreset(operands[0])
	if err != nil {
		return err
	}
	if len(operands) == 1 {
		return usageError{"the name of the new service is missing", "supervisor init " + p.name + " NAME"}
	}
	name, err := e.oneName(operands[1:])
	if err != nil {
		return err
	}
	if plain, isFile := strings.CutSuffix(name, ".toml"); isFile {
		return usageError{fmt.Sprintf("NAME is without .toml, not %q", name), fmt.Sprintf("supervisor init %s %s", p.name, plain)}
	}
	var addresses []string
	if o.listen != "" {
		addresses = strings.Split(o.listen, ",")
	}
	list, err := p.sockets(addresses)
	if err != nil {
		return err
	}
	out, err := p.render(name, list, o.harden)
	if err != nil {
		return err
	}
	if o.dryRun {
		for _, f := range out.files {
			fmt.Fprintf(e.stdout, "==> %s <==\n%s\n", filepath.Join(o.root, f.path), f.content)
		}
	} else if err := out.write(e, o.root); err != nil {
		return err
	}
	p.explain(e, name, list, out)
	return nil
}

func listPresets(e *env) error {
	rows := [][]string{{"PRESET", "LISTENS ON", "SERVER"}}
	for _, name := range presetNames() {
		p, err := loadPreset(name)
		if err != nil {
			return err
		}
		rows = append(rows, []string{name, strings.Join(p.Listen, ","), p.Title})
	}
	table(e.stdout, "", rows)
	return nil
}

// write writes all files, or none.
func (out plan) write(e *env, root string) error {
	var there []string
	for _, f := range out.files {
		if _, err := os.Lstat(filepath.Join(root, f.path)); err == nil {
			there = append(there, filepath.Join(root, f.path))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if len(there) > 0 {
		return hinted{fmt.Errorf("%s exists already, nothing is written", strings.Join(there, ", ")), "choose another name, or remove it first; --dry-run shows what would be written"}
	}
	for i, f := range out.files {
		if err := create(filepath.Join(root, f.path), f.content); err != nil {
			for _, done := range out.files[:i] {
				os.Remove(filepath.Join(root, done.path))
			}
			return fmt.Errorf("nothing is written: %w", err)
		}
	}
	for _, f := range out.files {
		fmt.Fprintf(e.stdout, "wrote %s\n", filepath.Join(root, f.path))
	}
	return nil
}

// create makes a file that must not be there, and what is above it.
func create(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(path)
	}
	return err
}

// explain says what is left to do.
func (p *preset) explain(e *env, name string, list []wanted, out plan) {
	fmt.Fprintf(e.stdout, "\nTo change first:\n%s\n", indent(p.expand(name, p.Change, list)))
	if p.User != "" {
		fmt.Fprintf(e.stdout, "  The service runs as the user %s, which must exist (User= in the drop-in).\n\n", p.User)
	}
	fmt.Fprintf(e.stdout, "What this cannot promise:\n%s\n", indent(p.expand(name, p.Limits, list)))
	first := "supervisor check " + name
	if len(p.Replaces) > 0 {
		first = "systemctl disable --now " + strings.Join(p.Replaces, " ")
	}
	fmt.Fprintf(e.stdout, "Then:\n  %s\n  systemctl daemon-reload\n  systemctl enable --now %s\n", first, strings.Join(out.units, " "))
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line != "\n" {
			b.WriteString("  ")
		}
		b.WriteString(line)
	}
	return b.String()
}
