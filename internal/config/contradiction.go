package config

import (
	"slices"
	"strconv"
	"strings"
)

// contradictions reports what is sound key by key, and together can never start, or never does what it says.
func (d *decoder) contradictions(c *Config) {
	d.idleKeys(c)
	d.readyInTime(&c.Ready)
	d.passable(c)
	d.steerable(c)
	d.descriptors(c)
	d.markers(c)
}

// reject reports a contradiction at a key of a table.
func (d *decoder) reject(table, key string, err error) {
	d.report(child(child("", table), key), table+"."+key, err)
}

// idle warns of a key of a table that does nothing.
func (d *decoder) idle(table, key string, err error) {
	d.warn(child(child("", table), key), table+"."+key, err)
}

// idleKeys finds keys that nothing asks for.
func (d *decoder) idleKeys(c *Config) {
	r := &c.Ready
	for _, k := range []struct {
		key, condition string
		set            bool
	}{
		{"socket", ReadyHAProxy, r.Socket != ""},
		{"command", ReadyCommand, r.Command != nil},
		{"file", ReadyFile, r.File != ""},
		{"delay", ReadyDelay, r.Delay != 0},
	} {
		if k.set && !slices.Contains(r.When, k.condition) {
			d.idle("ready", k.key, bad("add "+strconv.Quote(k.condition)+" to ready.when", "does nothing without %q in ready.when", k.condition))
		}
	}
	if c.Handoff.Getsocks != "" && c.Handoff.Fetch == FetchNone {
		d.idle("handoff", "getsocks", bad("remove handoff.fetch, or this", `does nothing with fetch = "none"`))
	}
}

func (d *decoder) readyInTime(r *Ready) {
	switch {
	case r.Stable > 0 && r.Stable >= r.Timeout:
		d.reject("ready", "stable", bad("make ready.timeout longer", "%v does not fit into ready.timeout of %v", r.Stable, r.Timeout))
	case slices.Contains(r.When, ReadyDelay) && r.Delay < r.Timeout && r.Delay+r.Stable >= r.Timeout:
		d.reject("ready", "stable", bad("make ready.timeout longer", "%v after a delay of %v does not fit into ready.timeout of %v", r.Stable, r.Delay, r.Timeout))
	}
}

// passable finds sockets that no convention of the worker can pass.
func (d *decoder) passable(c *Config) {
	only := func(convention string) bool {
		return !slices.ContainsFunc(c.Worker.Conventions, func(name string) bool { return name != convention })
	}
	bind, stdin := only(ConventionBind), only(ConventionStdin)
	for i, s := range c.Sockets {
		table := element(child("", "socket"), i)
		if bind && !s.Listen.IsZero() && !s.Listen.isIP() {
			d.report(child(table, "listen"), "socket.listen",
				bad("use a convention that the server knows, or remove the socket", `worker.sockets = ["bind"] passes TCP and UDP sockets only, not %q`, s.Listen))
		}
		if stdin && i > 0 {
			d.report(child(table, "name"), "socket.name",
				bad("remove it, or use another convention", `worker.sockets with "stdin" passes one socket only, as descriptor 0: %q is one too many`, s.Name))
		}
	}
}

// steerable finds that nothing can be steered. Sockets without listen are a .socket unit's, and may be of any kind.
func (d *decoder) steerable(c *Config) {
	maySteer := func(s Socket) bool { return s.Listen.IsZero() || s.Listen.isIP() }
	if c.Drain.Divert == DivertSteer && len(c.Sockets) > 0 && !slices.ContainsFunc(c.Sockets, maySteer) {
		d.idle("drain", "divert", bad(`divert = "fence" is for Unix sockets, "auto" takes what works`, "no socket here can be steered: only TCP and UDP can"))
	}
}

func (a Address) isIP() bool { return a.Network == "tcp" || a.Network == "udp" }

// markers finds variables that the supervisor sets over those of the same name. An earlier one took them.
func (d *decoder) markers(c *Config) {
	for name := range c.Worker.Environment {
		if name == "MAINPIDFDID" || strings.HasPrefix(name, "SUPERVISOR_") {
			d.report(child(child(child("", "worker"), "environment"), name), "worker.environment."+name, errNotYours)
		}
	}
}

// descriptors finds placeholders that stand for a descriptor where there is none.
func (d *decoder) descriptors(c *Config) {
	const own = "only worker.command and worker.environment can hold it"
	w := &c.Worker
	for _, k := range []struct {
		table, key string
		values     []string
	}{
		{"worker", "directory", []string{w.Directory}},
		{"worker", "pid_file", []string{w.PIDFile}},
		{"ready", "socket", []string{c.Ready.Socket}},
		{"ready", "command", c.Ready.Command},
		{"ready", "file", []string{c.Ready.File}},
		{"drain", "command", c.Drain.Command},
		{"handoff", "getsocks", []string{c.Handoff.Getsocks}},
	} {
		for i, s := range k.values {
			if usesDescriptor(s) {
				path := child(child("", k.table), k.key)
				d.report(element(path, i), k.table+"."+k.key, bad(own, "%q is a descriptor of the worker's, which is not there", s))
			}
		}
	}
	passes := slices.ContainsFunc(w.Conventions, func(name string) bool { return name != ConventionBind && name != ConventionGetsocks })
	command := func(key string, list []string) {
		for i, s := range list {
			if !passes && uses(s, "fd") {
				d.report(element(child(child("", "worker"), key), i), "worker."+key, notPassed(w, s))
			}
		}
	}
	command("command", w.Command)
	if w.CheckWithSockets {
		command("check", w.Check)
		for i, s := range w.Check {
			if uses(s, "getsocks_fd") {
				d.report(element(child(child("", "worker"), "check"), i), "worker.check", bad("leave it out", "%q is not there for a check", s))
			}
		}
	}
	for name, s := range w.Environment {
		path, key := child(child(child("", "worker"), "environment"), name), "worker.environment."+name
		switch {
		case !passes && uses(s, "fd"):
			d.report(path, key, notPassed(w, s))
		case uses(s, "getsocks_fd") && !slices.Contains(w.Conventions, ConventionGetsocks):
			d.report(path, key, bad(`add "getsocks" to worker.sockets`, "%q needs the convention getsocks", s))
		case w.Check != nil && (uses(s, "getsocks_fd") || uses(s, "fd") && !w.CheckWithSockets):
			hint := `set it for the command alone: "/usr/bin/env", "` + name + "=" + s + `", …`
			if uses(s, "fd") {
				hint = "check_with_sockets = true, or " + hint
			}
			d.warn(path, key, bad(hint, "worker.check gets this too, and for it there is no %q", s))
		}
	}
}

func notPassed(w *Worker, s string) error {
	hint := `add "argv" to worker.sockets`
	if slices.Contains(w.Conventions, ConventionBind) {
		hint = "name the address: ${addr:NAME}, ${host:NAME}, ${port:NAME}"
	}
	return bad(hint, "worker.sockets = [%s] passes no descriptor for %q", quoted(w.Conventions), s)
}

func usesDescriptor(s string) bool { return uses(s, "fd") || uses(s, "getsocks_fd") }
