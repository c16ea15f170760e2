package config_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/config"
)

const command = `command = ["/bin/true"]`

// worker, ready, drain and handoff give a file with one line in that table; socket one with a [[socket]] table.
func worker(lines ...string) string  { return "[worker]\n" + command + "\n" + strings.Join(lines, "\n") }
func ready(lines ...string) string   { return worker("[ready]") + "\n" + strings.Join(lines, "\n") }
func drain(lines ...string) string   { return worker("[drain]") + "\n" + strings.Join(lines, "\n") }
func handoff(lines ...string) string { return worker("[handoff]") + "\n" + strings.Join(lines, "\n") }
func socket(lines ...string) string {
	return worker("[[socket]]", `name = "http"`) + "\n" + strings.Join(lines, "\n")
}

// TestMistakes has every mistake the package finds beside what it says about it: "LINE: KEY: message (hint)".
func TestMistakes(t *testing.T) {
	long := strings.Repeat("x", 108)
	for _, test := range []struct{ text, want string }{
		// Tables and keys.
		{``, `1: worker.command: is missing (command = ["/usr/sbin/server", "-f"])`},
		{"\n\n[worker]", `3: worker.command: is missing (command = ["/usr/sbin/server", "-f"])`},
		{`worker = 1`, `1: worker: must be a table, not an integer (write [worker])`},
		{"worker." + command + "\n[[drain]]", `2: drain: must be a table, not an array (write [drain])`},
		{worker("[redy]"), `3: redy: unknown table (did you mean [ready]?)`},
		{worker("[[sockets]]"), `3: sockets: unknown table (did you mean [[socket]]?)`},
		{worker("[logging]"), `3: logging: unknown table (the tables are [worker], [ready], [drain], [handoff] and [[socket]])`},
		{"divert = 1\n" + worker(), `1: divert: unknown key ("divert" is a key of [drain])`},
		{worker(`settle = "1s"`), `3: worker.settle: unknown key ("settle" is a key of [drain])`},
		{handoff(`colour = 1`), `4: handoff.colour: unknown key (known are "fetch", "getsocks", "max_draining", "order")`},
		{worker(`"check\n" = 1`), `3: worker.check\n: unknown key (did you mean "check"?)`},
		{socket(`listn = ":1"`), `5: socket.listn: unknown key (did you mean "listen"?)`},

		// worker
		{"[worker]\ncommand = []", `2: worker.command: is empty`},
		{"[worker]\ncommand = [\"\"]", `2: worker.command: the program's path is empty`},
		{"[worker]\ncommand = [\n\"nginx\"]", `3: worker.command: program "nginx" is not an absolute path (PATH is not searched: write the path from /)`},
		{"[worker]\ncommand = \"/bin/a b\"", `2: worker.command: must be an array, not a string (write ["/bin/a", "b"])`},
		{"[worker]\ncommand = true", `2: worker.command: must be an array, not a boolean (write it in [ ])`},
		{"[worker]\ncommand = [\"/bin/a\", 80]", `2: worker.command: must be a string, not an integer (write "80")`},
		{"[worker]\ncommand = [\"/bin/a\", \"\\u0000\"]", `2: worker.command: holds a NUL byte`},
		{"[worker]\ncommand = [\"/bin/a\",\n\n\"${prot:x}\"]", `4: worker.command: unknown placeholder ${prot:x} (did you mean "port"?)`},
		{"[worker]\ncommand = [\"/bin/a\", \"${HOME}\"]", `2: worker.command: unknown placeholder ${HOME} (known are addr, dir, fd, generation, getsocks, getsocks_fd, host, name, path, pid, port, runtime, slot)`},
		{"[worker]\ncommand = [\"/bin/a\", \"${fd:x\"]", `2: worker.command: "${fd:x" is not closed with } ("${" always begins a placeholder)`},
		{"[worker]\ncommand = [\"/bin/a\", \"${getsocks_fd}\"]\nsockets = [\"systemd\"]", `2: worker.command: "${getsocks_fd}" needs the convention getsocks (add "getsocks" to worker.sockets)`},
		{worker(`check = ["true"]`), `3: worker.check: program "true" is not an absolute path (PATH is not searched: write the path from /)`},
		{worker(`check = ["/bin/true", "${fd:a}"]`), `3: worker.check: "${fd:a}" needs the sockets, which the check does not get (check_with_sockets = true)`},
		{worker(`check_with_sockets = "yes"`), `3: worker.check_with_sockets: must be a boolean, not a string (write true or false)`},
		{worker(`check_timeout = "0s"`), `3: worker.check_timeout: must be more than 0`},
		{worker(`environment = ["A=b"]`), `3: worker.environment: must be a table, not an array (write { NAME = "value" })`},
		{worker(`environment = { A = 1 }`), `3: worker.environment.A: must be a string, not an integer (write "1")`},
		{worker(`environment = { A = "${" }`), `3: worker.environment.A: "${" is not closed with } ("${" always begins a placeholder)`},
		{worker(`environment = { "A=B" = "" }`), `3: worker.environment.A=B: "A=B" cannot be the name of a variable`},
		{worker(`[worker.environment]`, `NOTIFY_SOCKET = ""`), `4: worker.environment.NOTIFY_SOCKET: is the supervisor's to set (leave it out)`},
		{worker(`environment.WATCHDOG_USEC = "1"`), `3: worker.environment.WATCHDOG_USEC: is the supervisor's to set (leave it out)`},
		{worker(`environment.MAINPID = "1"`), `3: worker.environment.MAINPID: is the supervisor's to set (leave it out)`},
		{worker(`environment.MAINPIDFDID = "1"`), `3: worker.environment.MAINPIDFDID: is the supervisor's to set (leave it out)`},
		{worker(`environment.SUPERVISOR_GENERATION = "a/b/1"`), `3: worker.environment.SUPERVISOR_GENERATION: is the supervisor's to set (leave it out)`},
		{worker(`environment.LISTEN_PID = "${pid}"`), `3: worker.environment.LISTEN_PID: is the supervisor's to set (leave it out)`},
		{worker(`directory = "srv"`), `3: worker.directory: path "srv" is not absolute (write the path from /, or from ${dir} or ${runtime})`},
		{worker(`directory = "/${pid}"`), `3: worker.directory: "/${pid}" is needed before the worker has a pid (${generation} is as unique)`},
		{worker(`directory = ""`), `3: worker.directory: is empty`},
		{worker(`sockets = ["sytemd"]`), `3: worker.sockets: unknown value "sytemd" (did you mean "systemd"?)`},
		{worker(`sockets = ["nginx", "nginx"]`), `3: worker.sockets: "nginx" is there twice`},
		{worker(`sockets = ["systemd", "fpm", "nginx"]`), `3: worker.sockets: "fpm", "nginx" exclude each other, they belong to different servers (name the one that the worker is)`},
		{worker(`watchdog = "-1s"`), `3: worker.watchdog: "-1s" is negative`},
		{worker(`pid_file = "${dir}/pid"`), `3: worker.pid_file: is there without pid_link (pid_link is the fixed path that points to it)`},
		{worker(`pid_link = "/run/pid"`), `3: worker.pid_link: is there without pid_file (pid_file = "${dir}/pid" is where the worker writes)`},
		{worker(`pid_file = "/run/a.pid"`, `pid_link = "/run/b.pid"`), `3: worker.pid_file: "/run/a.pid" is the same for every generation (write "${dir}/pid")`},
		{worker(`pid_file = "${dir}/pid"`, `pid_link = "${dir}/b.pid"`), `4: worker.pid_link: "${dir}/b.pid" is not the same for every generation (only ${runtime} and ${name} are)`},

		// ready
		{ready(`when = []`), `4: ready.when: is empty`},
		{ready(`when = "notify"`), `4: ready.when: must be an array, not a string (write ["notify"])`},
		{ready(`when = ["http"]`), `4: ready.when: unknown value "http" (one of "listening", "notify", "haproxy", "command", "file", "delay")`},
		{ready(`when = ["haproxy"]`), `4: ready.when: "haproxy" needs ready.socket (socket = "/run/…/admin.sock", usually the same as handoff.getsocks)`},
		{ready(`when = ["command"]`), `4: ready.when: "command" needs ready.command (command = ["/usr/bin/curl", "…"])`},
		{ready(`when = ["file"]`), `4: ready.when: "file" needs ready.file (file = "${dir}/ready")`},
		{ready(`when = ["delay"]`), `4: ready.when: "delay" needs ready.delay (delay = "2s")`},
		{ready(`when = ["delay"]`, `delay = "30s"`), `5: ready.delay: 30s does not fit into ready.timeout of 30s`},
		{ready(`timeout = "30"`), `4: ready.timeout: "30" is not a duration (write "30s")`},
		{ready(`timeout = 1.5`), `4: ready.timeout: must be a duration with its unit, not a number (write "1.5s")`},
		{ready(`timeout = "0s"`), `4: ready.timeout: must be more than 0`},
		{ready(`stable = "1 s"`), `4: ready.stable: "1 s" is not a duration (a number and its unit, such as "500ms", "30s" or "2m")`},
		{ready(`stable = 10:00:00`), `4: ready.stable: must be a duration, not a date (write "30s")`},
		{ready(`socket = "admin.sock"`), `4: ready.socket: path "admin.sock" is not absolute (write the path from /, or from ${dir} or ${runtime})`},
		{ready(`socket = "/` + long + `"`), `4: ready.socket: path "/` + long + `" is 109 bytes long (at most 107 fit into the address of a socket)`},
		{ready(`file = 1`), `4: ready.file: must be a string, not an integer (write "1")`},

		// drain
		{drain(`divert = "fance"`), `4: drain.divert: unknown value "fance" (did you mean "fence"?)`},
		{drain(`settle = "-500ms"`), `4: drain.settle: "-500ms" is negative`},
		{drain(`idle = false`), `4: drain.idle: must be a duration, not a boolean (write "30s")`},
		{drain(`signal = 15`), `4: drain.signal: signal 15 is a number (write the name, such as "SIGTERM")`},
		{drain(`signal = "15"`), `4: drain.signal: signal "15" is a number (write the name, such as "SIGTERM")`},
		{drain(`signal = "term"`), `4: drain.signal: unknown signal "term" (did you mean "SIGTERM"?)`},
		{drain(`signal = "goodbye"`), `4: drain.signal: unknown signal "goodbye" (such as "SIGTERM" or "USR1")`},
		{drain(`signal = "SIGSTOP"`), `4: drain.signal: "SIGSTOP" stops a worker for ever and never ends it`},
		{drain(`signal = "TERM"`, `command = ["/bin/true"]`), `5: drain.command: excludes drain.signal (the command is run in the place of the signal)`},
		{drain(`timeout = [1]`), `4: drain.timeout: must be a duration, not an array (write "30s")`},
		{drain(`escalate = []`), `4: drain.escalate: is empty`},
		{drain(`escalate = ["5s"]`), `4: drain.escalate: does not end with SIGKILL, which alone ends every worker (such as ["SIGTERM", "5s", "SIGKILL"])`},
		{drain(`escalate = ["SIGKILL", "5s"]`), `4: drain.escalate: does not end with SIGKILL, which alone ends every worker (such as ["SIGTERM", "5s", "SIGKILL"])`},
		{drain(`escalate = ["SIGTERM",`, `5, "SIGKILL"]`), `5: drain.escalate: must be a signal or a duration, not an integer (write "SIGTERM" or "5s")`},
		{drain(`escalate = ["SIGTERM",`, `"5", "SIGKILL"]`), `5: drain.escalate: "5" is not a duration (write "5s")`},
		{drain(`escalate = ["-5s", "SIGKILL"]`), `4: drain.escalate: "-5s" is negative`},
		{drain(`escalate = ["0s", "SIGKILL"]`), `4: drain.escalate: "0s" is no wait (leave it out)`},
		{drain(`escalate = ["SIGKIL"]`), `4: drain.escalate: unknown signal "SIGKIL" (did you mean "SIGKILL"?)`},
		{drain(`success = [256]`), `4: drain.success: 256 is no exit code (0 to 255)`},
		{drain(`success = ["143"]`), `4: drain.success: exit code "143" is a string (write 143 without quotes)`},
		{drain(`success = [1.0]`), `4: drain.success: must be an exit code or a signal, not a float (write 0 or "SIGTERM")`},
		{drain(`success = 0`), `4: drain.success: must be an array, not an integer (write it in [ ])`},

		// handoff
		{handoff(`order = "start_first"`), `4: handoff.order: unknown value "start_first" (did you mean "start-first"?)`},
		{handoff(`fetch = "x"`), `4: handoff.fetch: unknown value "x" (one of "getsocks", "pidfd", "none")`},
		{handoff(`fetch = "getsocks"`), `4: handoff.fetch: "getsocks" needs handoff.getsocks (getsocks = "/run/…/admin.sock", the worker's own socket)`},
		{handoff(`getsocks = "unix:/a"`), `4: handoff.getsocks: path "unix:/a" is not absolute (write the path from /, or from ${dir} or ${runtime})`},
		{handoff(`max_draining = 0`), `4: handoff.max_draining: 0 is out of range (1 to 1000)`},
		{handoff(`max_draining = "4"`), `4: handoff.max_draining: must be an integer, not a string (write a whole number without quotes)`},

		// socket
		{worker(`[socket]`), `3: socket: must be an array of tables, not a table (write [[socket]])`},
		{"socket = [1]\n" + worker(), `1: socket: must be a table, not an integer (write [[socket]])`},
		{worker(`[[socket]]`, `listen = ":80"`), `3: socket.name: is missing (name = "http")`},
		{socket(), `4: socket.name: says nothing about "http": neither an address nor an option (listen = "127.0.0.1:8080")`},
		{worker(`[[socket]]`, `listen = ":80"`, `name = ""`), `5: socket.name: is empty`},
		{worker(`[[socket]]`, `listen = ":80"`, `name = "a:b"`), `5: socket.name: name "a:b" holds ':' (printable ASCII without ":" and "\")`},
		{worker(`[[socket]]`, `listen = ":80"`, `name = 'a\b'`), `5: socket.name: name "a\\b" holds '\\' (printable ASCII without ":" and "\")`},
		{worker(`[[socket]]`, `listen = ":80"`, `name = "ä"`), `5: socket.name: name "ä" holds 'ä' (printable ASCII without ":" and "\")`},
		{worker(`[[socket]]`, `listen = ":80"`, `name = "supervisor.x"`), `5: socket.name: "supervisor.x" begins with "supervisor.", which is for the supervisor's own entries`},
		{worker(`[[socket]]`, `listen = ":80"`, `name = "`+long+long+`"`), `5: socket.name: the name is 216 bytes long (at most 200)`},
		{socket(`listen = ":80"`, `[[socket]]`, `name = "http"`, `listen = ":81"`), `7: socket.name: "http" is the name of two sockets (the other is in line 3)`},
		{socket(`listen = ":80"`, `[[socket]]`, `name = "b"`, `listen = "[::]:80"`), `8: socket.listen: "[::]:80" is the address of two sockets (the other is in line 3)`},
		{socket(`listen = "/run/x"`, `[[socket]]`, `name = "b"`, `listen = "unixgram:/run/x"`), `8: socket.listen: "unixgram:/run/x" is the address of two sockets (the other is in line 3)`},
		{socket(`listen = "unix:${dir}/a"`), `5: socket.listen: "unix:${dir}/a": there are no placeholders in listen`},
		{socket(`listen = 80`), `5: socket.listen: must be a string, not an integer (write "80")`},
		{socket(`nonblock = 1`), `5: socket.nonblock: must be a boolean, not an integer (write true or false)`},
		{socket(`backlog = -1`), `5: socket.backlog: -1 is out of range (at least 0)`},
		{socket(`listen = "udp::53"`, `backlog = 5`), `6: socket.backlog: does not fit "udp:[::]:53" (a datagram socket has none)`},
		{socket(`defer_accept = "1500ms"`), `5: socket.defer_accept: 1.5s is not in whole seconds, as the kernel counts`},
		{socket(`listen = "/run/x"`, `defer_accept = "1s"`), `6: socket.defer_accept: does not fit "unix:/run/x" (only a TCP socket has it)`},
		{socket(`listen = "0.0.0.0:80"`, `v6only = true`), `6: socket.v6only: does not fit "0.0.0.0:80" (only an IPv6 socket that is bound here has it)`},
		{socket(`listen = "/run/x"`, `free_bind = true`), `6: socket.free_bind: does not fit "unix:/run/x" (only a TCP or UDP socket that is bound here has it)`},
		{socket(`listen = "unix:@x"`, `mode = "0660"`), `6: socket.mode: does not fit "unix:@x" (only a Unix socket that is bound here to a path has it)`},
		{socket(`user = "x"`), `5: socket.user: does not fit a socket without listen, which comes from a .socket unit (only a Unix socket that is bound here to a path has it)`},
		{socket(`listen = "/run/x"`, `group = 33`), `6: socket.group: must be a string, not an integer (write "33")`},
		{socket(`listen = "/run/x"`, `user = "a:b"`), `6: socket.user: "a:b" is no name of a user or group`},
		{socket(`listen = "/run/x"`, `mode = 660`), `6: socket.mode: 660 is not octal (write "0660" or 0o660)`},
		{socket(`listen = "/run/x"`, `mode = 0x1ff`), `6: socket.mode: 511 is not octal (write "0660" or 0o660)`},
		{socket(`listen = "/run/x"`, `mode = 0o1777`), `6: socket.mode: 01777 has more than permission bits (0000 to 0777)`},
		{socket(`listen = "/run/x"`, `mode = true`), `6: socket.mode: must be a string, not a boolean (write "0660")`},

		// What is sound key by key and cannot be together.
		{worker(`sockets = ["bind"]`, `[[socket]]`, `name = "a"`, `listen = "/run/x"`), `6: socket.listen: worker.sockets = ["bind"] passes TCP and UDP sockets only, not "unix:/run/x" (use a convention that the server knows, or remove the socket)`},
		{worker(`sockets = ["stdin"]`, `[[socket]]`, `name = "a"`, `listen = ":1"`, `[[socket]]`, `name = "b"`, `listen = ":2"`), `8: socket.name: worker.sockets with "stdin" passes one socket only, as descriptor 0: "b" is one too many (remove it, or use another convention)`},
		{ready(`stable = "30s"`), `4: ready.stable: 30s does not fit into ready.timeout of 30s (make ready.timeout longer)`},
		{ready(`when = ["delay"]`, `delay = "20s"`, `stable = "10s"`), `6: ready.stable: 10s after a delay of 20s does not fit into ready.timeout of 30s (make ready.timeout longer)`},

		// Descriptors where there are none.
		{worker(`directory = "/proc/self/fd/${fd:a}"`), `3: worker.directory: "/proc/self/fd/${fd:a}" is a descriptor of the worker's, which is not there (only worker.command and worker.environment can hold it)`},
		{ready(`when = ["file"]`, `file = "/x/${fd:a}"`), `5: ready.file: "/x/${fd:a}" is a descriptor of the worker's, which is not there (only worker.command and worker.environment can hold it)`},
		{ready(`when = ["command"]`, `command = ["/bin/true",`, `"${fd:a}"]`), `6: ready.command: "${fd:a}" is a descriptor of the worker's, which is not there (only worker.command and worker.environment can hold it)`},
		{drain(`command = ["/bin/true", "${getsocks_fd}"]`), `4: drain.command: "${getsocks_fd}" is a descriptor of the worker's, which is not there (only worker.command and worker.environment can hold it)`},
		{"[worker]\ncommand = [\"/bin/a\", \"${fd:x}\"]\nsockets = [\"bind\"]", `2: worker.command: worker.sockets = ["bind"] passes no descriptor for "${fd:x}" (name the address: ${addr:NAME}, ${host:NAME}, ${port:NAME})`},
		{worker(`sockets = ["getsocks"]`, `environment.FD = "${fd:x}"`), `4: worker.environment.FD: worker.sockets = ["getsocks"] passes no descriptor for "${fd:x}" (add "argv" to worker.sockets)`},
		{worker(`environment.FD = "${getsocks_fd}"`), `3: worker.environment.FD: "${getsocks_fd}" needs the convention getsocks (add "getsocks" to worker.sockets)`},
		{worker(`check = ["/bin/true", "${getsocks_fd}"]`, `check_with_sockets = true`, `sockets = ["getsocks"]`), `3: worker.check: "${getsocks_fd}" is not there for a check (leave it out)`},
	} {
		_, err := config.Parse("web", "f", []byte(test.text))
		var list config.Errors
		if !errors.As(err, &list) {
			t.Errorf("%s\n\twas accepted, or is no list: %v", test.text, err)
			continue
		}
		if diff := cmp.Diff("f:"+test.want, fmt.Sprint(err)); diff != "" {
			t.Errorf("%s\n%s", test.text, diff)
		}
	}
}

// What is no mistake, but does not do what it seems to.
func TestWarnings(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{drain(`divert = "steer"`, `[[socket]]`, `name = "a"`, `listen = "/run/x"`), `4: drain.divert: no socket here can be steered: only TCP and UDP can (divert = "fence" is for Unix sockets, "auto" takes what works)`},
		{ready(`command = ["/bin/true"]`), `4: ready.command: does nothing without "command" in ready.when (add "command" to ready.when)`},
		{ready(`file = "${dir}/ready"`), `4: ready.file: does nothing without "file" in ready.when (add "file" to ready.when)`},
		{ready(`delay = "1s"`), `4: ready.delay: does nothing without "delay" in ready.when (add "delay" to ready.when)`},
		{ready(`socket = "${runtime}/admin.sock"`), `4: ready.socket: does nothing without "haproxy" in ready.when (add "haproxy" to ready.when)`},
		{handoff(`getsocks = "${runtime}/admin.sock"`, `fetch = "none"`), `4: handoff.getsocks: does nothing with fetch = "none" (remove handoff.fetch, or this)`},
		{worker(`environment.FD = "${fd:x}"`, `check = ["/bin/true"]`), `3: worker.environment.FD: worker.check gets this too, and for it there is no "${fd:x}" (check_with_sockets = true, or set it for the command alone: "/usr/bin/env", "FD=${fd:x}", …)`},
		{ready(`delay = "1s"`, `file = "/x"`), `4: ready.delay: does nothing without "delay" in ready.when (add "delay" to ready.when)
f:5: ready.file: does nothing without "file" in ready.when (add "file" to ready.when)`},
	} {
		c, err := config.Parse("web", "f", []byte(test.text))
		if err != nil {
			t.Errorf("%s\n%v", test.text, err)
			continue
		}
		if diff := cmp.Diff("f:"+test.want, c.Warnings.Error()); diff != "" {
			t.Errorf("%s\n%s", test.text, diff)
		}
	}
}

func TestErrorText(t *testing.T) {
	for _, test := range []struct {
		err  config.Error
		want string
	}{
		{config.Error{File: "f", Line: 3, Col: 9, Key: "a.b", Message: "is bad", Hint: "do"}, "f:3: a.b: is bad (do)"},
		{config.Error{File: "f", Line: 3, Message: "is bad"}, "f:3: is bad"},
		{config.Error{File: "f", Message: "is bad", Hint: "do"}, "f: is bad (do)"},
		{config.Error{File: "f", Key: "a\nb", Message: "\x1b[1mä"}, `f: a\nb: \x1b[1mä`},
	} {
		if got := test.err.Error(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

// What another supervisor has accepted is still the configuration of a worker that serves.
func TestRecallAcceptsContradictions(t *testing.T) {
	text := []byte(worker(`environment.SUPERVISOR_X = "1"`, `[ready]`, `command = ["/bin/true", "${fd:a}"]`, `stable = "1h"`, `[[socket]]`, `name = "a"`, `listen = ":1"`))
	if _, err := config.Parse("web", "f", text); err == nil {
		t.Error("accepted as new")
	}
	c, err := config.Recall("web", "f", text)
	if err != nil {
		t.Fatal(err)
	}
	if c.Ready.Stable != time.Hour || len(c.Sockets) != 1 {
		t.Errorf("got %+v", c)
	}
	if _, err := config.Recall("web", "f", []byte(worker(`socket = 1`))); err == nil {
		t.Error("what is no configuration was accepted")
	}
}

// What looks near a contradiction and is none.
func TestSoundTogether(t *testing.T) {
	for _, text := range []string{
		worker(`sockets = ["bind"]`, `[[socket]]`, `name = "a"`, `listen = "udp::1"`),
		worker(`sockets = ["stdin"]`, `[[socket]]`, `name = "a"`, `listen = "/run/x"`),
		worker(`sockets = ["bind", "systemd"]`, `[[socket]]`, `name = "a"`, `listen = "/run/x"`),
		worker(`sockets = ["systemd", "stdin"]`, `[[socket]]`, `name = "a"`, `listen = "/run/x"`, `[[socket]]`, `name = "b"`, `listen = ":2"`),
		drain(`divert = "steer"`, `[[socket]]`, `name = "a"`, `nonblock = true`, `[[socket]]`, `name = "b"`, `listen = "/run/x"`),
		drain(`divert = "steer"`),
		ready(`when = ["delay"]`, `delay = "1s"`, `stable = "28s"`),
		worker(`environment.FD = "${fd:x}"`),
		worker(`environment.FD = "${fd:x}"`, `check = ["/bin/true"]`, `check_with_sockets = true`),
		handoff(`getsocks = "${runtime}/admin.sock"`, `fetch = "pidfd"`),
		"[worker]\nsockets = [\"stdin\"]\ncommand = [\"/bin/a\", \"${fd:x}\"]",
	} {
		c, err := config.Parse("web", "f", []byte(text))
		if err != nil {
			t.Errorf("%s\n%v", text, err)
		} else if c.Warnings != nil {
			t.Errorf("%s\nwarns: %v", text, c.Warnings)
		}
	}
}
