package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

func (d *decoder) config(values map[string]any, c *Config) {
	root := d.table("", "", values)
	if t := root.section("worker"); t != nil {
		t.worker(&c.Worker)
	}
	if t := root.section("ready"); t != nil {
		t.ready(&c.Ready)
	}
	if t := root.section("drain"); t != nil {
		t.drain(&c.Drain)
	}
	if t := root.section("handoff"); t != nil {
		t.handoff(&c.Handoff)
	}
	c.Sockets = d.sockets(root)
}

// section returns a table of the top level: an empty one if it is absent, nil if it is something else.
func (t *table) section(name string) *table {
	v, ok := t.get(name)
	values, isTable := v.(map[string]any)
	if ok && !isTable {
		t.fail(name, bad("write ["+name+"]", "must be a table, not %s", kind(v)))
		return nil
	}
	return t.d.table(name, child(t.path, name), values)
}

func (t *table) worker(w *Worker) {
	*w = Worker{CheckTimeout: 30 * time.Second, Directory: "/", Environment: map[string]string{}}
	t.command("command", &w.Command)
	if !t.has("command") {
		t.fail("command", bad(`command = ["/usr/sbin/server", "-f"]`, "is missing"))
	}
	t.command("check", &w.Check)
	t.boolean("check_with_sockets", &w.CheckWithSockets)
	t.duration("check_timeout", &w.CheckTimeout, positive)
	t.environment(w.Environment)
	t.text("directory", &w.Directory, checkPath)
	t.duration("watchdog", &w.Watchdog, 0)
	t.text("pid_file", &w.PIDFile, checkPath)
	t.text("pid_link", &w.PIDLink, checkFixedPath)
	t.pidFiles(w)
	t.conventions(w)
	t.checkSockets(w)
}

// command reads a list of arguments of which the first is a program's path.
func (t *table) command(name string, dst *[]string) {
	t.texts(name, dst, func(i int, s string) error {
		if _, err := Placeholders(s); err != nil || i > 0 {
			return err
		}
		if s == "" {
			return bad("", "the program's path is empty")
		}
		if !isAbsolute(s) {
			return bad("PATH is not searched: write the path from /", "program %q is not an absolute path", s)
		}
		return nil
	})
}

func (t *table) environment(dst map[string]string) {
	v, ok := t.get("environment")
	if !ok {
		return
	}
	values, ok := v.(map[string]any)
	if !ok {
		t.fail("environment", bad(`write { NAME = "value" }`, "must be a table, not %s", kind(v)))
		return
	}
	at := child(t.path, "environment")
	for name, v := range values {
		s, err := asText(v)
		if err == nil {
			_, err = Placeholders(s)
		}
		if e := checkVariable(name); e != nil {
			err = e
		}
		if err != nil {
			t.d.report(child(at, name), t.key("environment."+name), err)
			continue
		}
		dst[name] = s
	}
}

var errNotYours = bad("leave it out", "is the supervisor's to set")

func checkVariable(name string) error {
	switch {
	case name == "" || strings.ContainsAny(name, "=\x00"):
		return bad("", "%q cannot be the name of a variable", name)
	case name == "NOTIFY_SOCKET", name == "MAINPID",
		strings.HasPrefix(name, "LISTEN_"), strings.HasPrefix(name, "WATCHDOG_"):
		return errNotYours
	}
	return nil
}

func (t *table) pidFiles(w *Worker) {
	switch {
	case t.has("pid_file") && !t.has("pid_link"):
		t.fail("pid_file", bad("pid_link is the fixed path that points to it", "is there without pid_link"))
	case t.has("pid_link") && !t.has("pid_file"):
		t.fail("pid_link", bad(`pid_file = "${dir}/pid" is where the worker writes`, "is there without pid_file"))
	case w.PIDFile != "" && !uses(w.PIDFile, "dir") && !uses(w.PIDFile, "generation"):
		t.fail("pid_file", bad(`write "${dir}/pid"`, "%q is the same for every generation", w.PIDFile))
	}
}

// native are the conventions that one server has made for itself; a worker is only one of them.
var native = []string{ConventionNginx, ConventionFPM, ConventionUnicorn, ConventionNghttpx}

func (t *table) conventions(w *Worker) {
	w.Conventions = []string{ConventionSystemd}
	if usesAny(w.Command, "getsocks", "getsocks_fd") {
		w.Conventions = []string{ConventionGetsocks}
	}
	t.choices("sockets", &w.Conventions, ConventionSystemd, ConventionGetsocks, ConventionNginx, ConventionFPM,
		ConventionStarter, ConventionUnicorn, ConventionNghttpx, ConventionEinhorn, ConventionStdin,
		ConventionArgv, ConventionBind)
	var found []string
	for _, c := range w.Conventions {
		if slices.Contains(native, c) && !slices.Contains(found, c) {
			found = append(found, c)
		}
	}
	if len(found) > 1 {
		t.fail("sockets", bad("name the one that the worker is", "%s exclude each other, they belong to different servers", quoted(found)))
	}
}

// checkSockets finds placeholders for which nothing is there.
func (t *table) checkSockets(w *Worker) {
	if !slices.Contains(w.Conventions, ConventionGetsocks) {
		for i, s := range w.Command {
			if uses(s, "getsocks") || uses(s, "getsocks_fd") {
				t.failAt("command", i, bad(`add "getsocks" to worker.sockets`, "%q needs the convention getsocks", s))
			}
		}
	}
	if !w.CheckWithSockets {
		for i, s := range w.Check {
			if uses(s, "fd") || uses(s, "getsocks_fd") {
				t.failAt("check", i, bad("check_with_sockets = true", "%q needs the sockets, which the check does not get", s))
			}
		}
	}
}

// uses says whether s holds the placeholder kind; text that is wrong was reported before.
func uses(s, kind string) bool {
	list, _ := Placeholders(s)
	return slices.ContainsFunc(list, func(p string) bool {
		p, _, _ = strings.Cut(p, ":")
		return p == kind
	})
}

func usesAny(list []string, kinds ...string) bool {
	return slices.ContainsFunc(list, func(s string) bool {
		return slices.ContainsFunc(kinds, func(k string) bool { return uses(s, k) })
	})
}

// isAbsolute says whether s begins with / or with a placeholder that does.
func isAbsolute(s string) bool {
	for _, prefix := range []string{"/", "${dir}", "${runtime}", "${path:", "${getsocks}"} {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

// checkPath checks the path of a file, which may hold every placeholder but ${pid}.
func checkPath(s string) error {
	if _, err := Placeholders(s); err != nil {
		return err
	}
	if UsesPID(s) {
		return bad("${generation} is as unique", "%q is needed before the worker has a pid", s)
	}
	if !isAbsolute(s) {
		return bad("write the path from /, or from ${dir} or ${runtime}", "path %q is not absolute", s)
	}
	return nil
}

// checkFixedPath checks a path that must be the same for every generation.
func checkFixedPath(s string) error {
	if err := checkPath(s); err != nil {
		return err
	}
	for kind := range maps.Keys(placeholders) {
		if kind != "runtime" && kind != "name" && uses(s, kind) {
			return bad("only ${runtime} and ${name} are", "%q is not the same for every generation", s)
		}
	}
	return nil
}

// checkSocketPath checks the path of a worker's own socket; its length is only known without placeholders.
func checkSocketPath(s string) error {
	if err := checkPath(s); err != nil {
		return err
	}
	if !strings.Contains(s, "${") && len(s) > maxUnixPath {
		return bad(fmt.Sprintf("at most %d fit into the address of a socket", maxUnixPath), "path %q is %d bytes long", s, len(s))
	}
	return nil
}
