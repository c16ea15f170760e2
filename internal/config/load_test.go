package config_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/config"
)

func load(t *testing.T, path string) *config.Config {
	t.Helper()
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func sum(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

func compare(t *testing.T, got, want *config.Config) {
	t.Helper()
	if file, err := os.ReadFile(want.Path); err != nil || string(file) != got.Text {
		t.Errorf("Text is not the content of %s (%v)", want.Path, err)
	}
	want.Text = got.Text
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("unlike what was expected (-want +got):\n%s", diff)
	}
}

// minimal is what a file with nothing but a command means: every default.
func minimal(t *testing.T) *config.Config {
	return &config.Config{
		Name: "minimal",
		Path: "testdata/minimal.toml",
		Sum:  sum(t, "testdata/minimal.toml"),
		Worker: config.Worker{
			Command:      []string{"/usr/bin/server"},
			CheckTimeout: 30 * time.Second,
			Environment:  map[string]string{},
			Directory:    "/",
			Conventions:  []string{"systemd"},
		},
		Ready: config.Ready{When: []string{"listening"}, Timeout: 30 * time.Second},
		Drain: config.Drain{
			Divert:   "auto",
			Settle:   500 * time.Millisecond,
			Signal:   syscall.SIGTERM,
			Timeout:  30 * time.Second,
			Escalate: []config.EscalateStep{{Signal: syscall.SIGTERM}, {Wait: 5 * time.Second}, {Signal: syscall.SIGKILL}},
			Success:  []config.ExitStatus{{Code: 0}, {Signal: syscall.SIGTERM}, {Code: 143}},
		},
		Handoff: config.Handoff{Order: "start-first", Fetch: "none", MaxDraining: 4},
	}
}

func TestDefaults(t *testing.T) {
	compare(t, load(t, "testdata/minimal.toml"), minimal(t))
}

func TestDesignExample(t *testing.T) {
	want := minimal(t)
	want.Name, want.Path, want.Sum = "design", "testdata/design.toml", sum(t, "testdata/design.toml")
	want.Worker.Command = []string{"/usr/sbin/haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg", "-x", "sockpair@${getsocks_fd}"}
	want.Worker.Check = []string{"/usr/sbin/haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"}
	want.Worker.Environment = map[string]string{"TZ": "UTC"}
	want.Worker.Conventions = []string{"getsocks"}
	want.Ready.When = []string{"haproxy"}
	want.Ready.Socket = "/run/supervisor/web/admin.sock"
	want.Ready.Command = []string{"/usr/bin/curl", "..."}
	want.Drain.Signal = syscall.SIGUSR1
	want.Handoff.Fetch = "getsocks"
	want.Handoff.Getsocks = "/run/supervisor/web/admin.sock"
	want.Sockets = []config.Socket{{
		Name: "http", Listen: config.Address{Network: "tcp", Host: "127.0.0.1", Port: 8080}, Nonblock: new(bool), Line: 31,
	}}
	got := load(t, "testdata/design.toml")
	if len(got.Warnings) != 1 || got.Warnings[0].Key != "ready.command" {
		t.Errorf("warnings: %v", got.Warnings)
	}
	want.Warnings = got.Warnings
	compare(t, got, want)
}

func TestConventionFollowsThePlaceholders(t *testing.T) {
	for text, want := range map[string][]string{
		`command = ["/bin/a", "-x", "${getsocks}"]`:                                   {"getsocks"},
		`command = ["/bin/a", "-x", "sockpair@${getsocks_fd}"]`:                       {"getsocks"},
		`command = ["/bin/a", "${fd:getsocks}"]`:                                      {"systemd"},
		"command = [\"/bin/a\", \"${getsocks}\"]\nsockets = [\"argv\", \"getsocks\"]": {"argv", "getsocks"},
	} {
		c, err := config.Parse("web", "web.toml", []byte("[worker]\n"+text))
		if err != nil {
			t.Error(err)
			continue
		}
		if diff := cmp.Diff(want, c.Worker.Conventions); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}

func TestEveryKey(t *testing.T) {
	yes, group, owner := true, uint32(0o660), uint32(0o600)
	want := &config.Config{
		Name: "full", Path: "testdata/full.toml", Sum: sum(t, "testdata/full.toml"),
		Worker: config.Worker{
			Command:          []string{"/usr/bin/server", "--port=${port:http}", "--pid=${pid}"},
			Check:            []string{"/usr/bin/server", "--check", "--fd=${fd:http}"},
			CheckWithSockets: true,
			CheckTimeout:     time.Minute,
			Environment:      map[string]string{"SLOT": "${slot}", "EMPTY": ""},
			Directory:        "${dir}",
			Conventions:      []string{"systemd", "starter"},
			Watchdog:         10 * time.Second,
			PIDFile:          "${dir}/${generation}.pid",
			PIDLink:          "${runtime}/${name}.pid",
		},
		Ready: config.Ready{
			When:   []string{"listening", "notify", "haproxy", "command", "file", "delay"},
			Stable: time.Second, Timeout: 2 * time.Minute, Socket: "${runtime}/admin.sock",
			Command: []string{"/usr/bin/curl", "-fsS", "http://${addr:http}/"},
			File:    "${dir}/ready", Delay: 250 * time.Millisecond,
		},
		Drain: config.Drain{
			Divert: "steer", Settle: time.Second, Idle: 20 * time.Second,
			Command: []string{"/bin/kill", "-QUIT", "${pid}"}, Timeout: 90 * time.Second,
			Escalate: []config.EscalateStep{
				{Signal: syscall.SIGINT}, {Wait: 2 * time.Second}, {Signal: syscall.SIGTERM},
				{Wait: 500 * time.Millisecond}, {Signal: syscall.SIGKILL},
			},
			Success: []config.ExitStatus{{Code: 0}, {Signal: syscall.SIGINT}, {Code: 130}},
		},
		Handoff: config.Handoff{Order: "signal-first", Fetch: "pidfd", Getsocks: "${dir}/getsocks.sock", MaxDraining: 2},
		Sockets: []config.Socket{
			{Name: "http", Listen: config.Address{Network: "tcp", Port: 80}, Nonblock: &yes, Backlog: 1024,
				V6Only: &yes, FreeBind: true, DeferAccept: 3 * time.Second, Line: 41},
			{Name: "local", Listen: config.Address{Network: "unix", Path: "/run/server.sock"},
				Mode: &group, User: "www-data", Group: "1000", Line: 50},
			{Name: "dgram", Listen: config.Address{Network: "unixgram", Path: "/run/server.dgram"}, Mode: &owner, Line: 57},
			{Name: "from unit", Backlog: 16, Line: 62},
		},
	}
	compare(t, load(t, "testdata/full.toml"), want)
}

func TestSamplesLoad(t *testing.T) {
	files, err := filepath.Glob("testdata/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	for _, f := range files {
		_, err := config.Load(f)
		if mistakes := strings.Contains(f, "mistakes"); mistakes != (err != nil) {
			t.Errorf("%s: %v", f, err)
		}
	}
}

func TestTwelveMistakesAtOnce(t *testing.T) {
	_, err := config.Load("testdata/mistakes.toml")
	want := strings.Join([]string{
		`:2: worker.command: is missing (command = ["/usr/sbin/server", "-f"])`,
		`:3: worker.comand: unknown key (did you mean "command"?)`,
		`:4: worker.check: must be an array, not a string (write ["server", "--check"])`,
		`:5: worker.environment.LISTEN_FDS: is the supervisor's to set (leave it out)`,
		`:9: ready.when: unknown value "notfy" (did you mean "notify"?)`,
		`:10: ready.timeout: must be a duration with its unit, not a number (write "30s")`,
		`:13: drain.signal: unknown signal "SIGUSR3" (did you mean "SIGUSR1"?)`,
		`:14: drain.escalate: does not end with SIGKILL, which alone ends every worker (such as ["SIGTERM", "5s", "SIGKILL"])`,
		`:17: handoff.fetch: "getsocks" needs handoff.getsocks (getsocks = "/run/…/admin.sock", the worker's own socket)`,
		`:21: socket.listen: "localhost" in "localhost:80" is no IP address (names are not looked up, as there may be no DNS at boot: write an IP address or *)`,
		`:24: socket.name: "http" is the name of two sockets (the other is in line 19)`,
		`:26: socket.mode: "0999" is not octal (write "0660")`,
		``,
	}, "\n")
	want = strings.ReplaceAll("\n"+want, "\n:", "\ntestdata/mistakes.toml:")[1:]
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(fmt.Sprintln(err), "\n")); diff != "" {
		t.Errorf("unlike what was expected (-want +got):\n%s", diff)
	}
	var list config.Errors
	if !errors.As(err, &list) || list[1].Key != "worker.comand" || list[1].Line != 3 || list[1].Col != 1 || list[1].Hint == "" {
		t.Errorf("not the parts of the mistake in line 3: %#v", list)
	}
}

func TestSyntaxErrorHasItsLine(t *testing.T) {
	for _, last := range []string{"directory = /\n", "directory = /", "directory = \"\\", "directory = \"\n", "directory = [\n"} {
		_, err := config.Parse("web", "web.toml", []byte("[worker]\ncommand = [\"/bin/true\"]\n"+last))
		var list config.Errors
		if !errors.As(err, &list) || len(list) != 1 || list[0].Line != 3 {
			t.Errorf("%q: got %v", last, err)
		}
	}
}

func TestDuplicateKeyIsAnError(t *testing.T) {
	_, err := config.Parse("web", "web.toml", []byte("[worker]\ncommand = [\"/bin/true\"]\ncommand = [\"/bin/false\"]\n"))
	var list config.Errors
	if !errors.As(err, &list) || len(list) != 1 || list[0].Line != 3 {
		t.Errorf("got %v", err)
	}
}

func TestLoadOfNothing(t *testing.T) {
	_, err := config.Load("testdata/absent.toml")
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "testdata/absent.toml") {
		t.Errorf("got %v", err)
	}
	if _, err := config.Load("testdata"); err == nil {
		t.Error("a directory was read")
	}
}

func TestBounds(t *testing.T) {
	for name, text := range map[string]string{
		"size":  "[worker]\ncommand = [\"/bin/true\"]\n#" + strings.Repeat("x", 1<<20),
		"depth": "a = " + strings.Repeat("[", 1<<20-10),
		"empty": "",
		"bom":   "\ufeff",
		"boms":  "\ufeff\ufeff[worker]\ncommand = [\"/bin/true\"]\n",
		"utf16": "\xff\xfe[worker]\ncommand = [\"/bin/true\"]\n",
	} {
		_, err := config.Parse("web", "web.toml", []byte(text))
		var list config.Errors
		if !errors.As(err, &list) || len(list) != 1 {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"web", "web-1", "web_1.a@b", "0", strings.Repeat("x", 64)} {
		if err := config.CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", ".web", "-web", "@", "a/b", "a b", "ä", "a\x00", "a:b", strings.Repeat("x", 65)} {
		if err := config.CheckName(name); err == nil {
			t.Errorf("%q was accepted", name)
		}
		if _, err := config.Parse(name, "web.toml", []byte("[worker]\ncommand = [\"/bin/true\"]\n")); err == nil {
			t.Errorf("%q was accepted by Parse", name)
		}
	}
}

func TestManySockets(t *testing.T) {
	var b strings.Builder
	b.WriteString("[worker]\ncommand = [\"/bin/true\"]\n")
	for i := range 10_000 {
		fmt.Fprintf(&b, "[[socket]]\nname = \"s%d\"\nlisten = \"127.0.0.1:%d\"\n", i, i+1)
	}
	c, err := config.Parse("web", "web.toml", []byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if last := c.Sockets[9999]; len(c.Sockets) != 10_000 || last.Line != 2+9999*3+1 {
		t.Errorf("got %d sockets, the last is %+v", len(c.Sockets), last)
	}
}
