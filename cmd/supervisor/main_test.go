package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/internal/leaktest"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/activation"
	"github.com/8265a91a/supervisor/pkg/getsocks"
)

func TestMain(m *testing.M) {
	if os.Getenv("SUPERVISOR_TEST_PROGRAM") != "" || len(os.Args) > 1 && os.Args[1] == activation.ShimCommand {
		main() // see program
	}
	os.Exit(leaktest.Main(m))
}

// program runs the program in a process of its own, as the daemon needs.
func program(t *testing.T, args ...string) (code int, stderr string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "SUPERVISOR_TEST_PROGRAM=1")
	log, err := os.Create(filepath.Join(t.TempDir(), "stderr")) // a file, so that a worker's last words can be read back
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	said, err := os.ReadFile(log.Name())
	if err != nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(said)
}

// A first start that fails ends the daemon with the reason, the worker's last words, and the cure where there is one.
func TestRunSaysWhyItCannotStart(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "first.toml")
	text := "[worker]\ncommand = [\"/bin/sh\", \"-c\", \"echo bind: Address already in use >&2; exit 1\"]\n[[socket]]\nname = \"http\"\nlisten = \"unix:" + dir + "/socket\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stderr := program(t, "run", "first", "--config", file, "--runtime-dir", dir)
	for _, part := range []string{"supervisor: error: cannot start first: ready failed: ", "exit code 1", "its last words: bind: Address already in use\n", "hint: the supervisor holds that address"} {
		if code != exitFailed || !strings.Contains(stderr, part) {
			t.Errorf("exit code %d, %q is missing in:\n%s", code, part, stderr)
		}
	}
}

// invoke runs the program as a shell would, but for the process.
func invoke(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(args, strings.NewReader(""), &out, &err)
	return code, out.String(), err.String()
}

// daemon plays the supervisor of one service.
type daemon struct {
	mu       sync.Mutex
	status   control.Status
	fds      control.FDs
	events   []control.Event
	result   control.Result
	drained  bool
	reexeced bool
}

func (d *daemon) Reload(_ context.Context, drained bool, events func(control.Event)) control.Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drained = drained
	for _, e := range d.events {
		events(e)
	}
	return d.result
}

func (d *daemon) Status() control.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reexeced {
		d.status.Started, d.status.Version = d.status.Started.Add(time.Hour), "v2"
	}
	return d.status
}

func (d *daemon) FDs() control.FDs { return d.fds }

func (d *daemon) Reexec(context.Context, func(control.Event)) control.Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reexeced = d.result.OK
	return d.result
}

// start serves d as the service called name under dir.
func start(t *testing.T, dir, name string, d *daemon) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := control.Listen(filepath.Join(dir, name, control.SocketName), os.Getuid())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- control.Serve(ctx, l, d) }()
	t.Cleanup(func() {
		cancel()
		<-served
		l.Close()
	})
}

func micro(us int) control.Duration { return control.Duration(time.Duration(us) * time.Microsecond) }

func TestUsage(t *testing.T) {
	t.Setenv("SUPERVISOR_RUNTIME_DIR", t.TempDir())
	for _, tc := range []struct {
		args   string
		code   int
		stdout string // a part of it; nothing else is said on stderr when the code is 0
		stderr string
	}{
		{"", exitUsage, "", "usage: supervisor COMMAND"},
		{"help", exitDone, "exit codes:", ""},
		{"--help", exitDone, "usage: supervisor COMMAND", ""},
		{"-h", exitDone, "usage: supervisor COMMAND", ""},
		{"help reload", exitDone, "usage: supervisor reload", ""},
		{"help --help", exitDone, "usage: supervisor COMMAND", ""},
		{"help relaod", exitUsage, "", `hint: did you mean "reload"?`},
		{"relaod web", exitUsage, "", "supervisor: error: unknown command \"relaod\"\nsupervisor: hint: did you mean \"reload\"?\n"},
		{"frobnicate", exitUsage, "", "hint: supervisor help lists the commands"},
		{"reload --help", exitDone, "usage: supervisor reload", ""},
		{"reload web -h", exitDone, "usage: supervisor reload", ""},
		{"status web --josn", exitUsage, "", `hint: did you mean "--json"?`},
		{"status --x", exitUsage, "", "known flags are --json, --runtime-dir"},
		{"status --json=yes", exitUsage, "", "--json takes no value"},
		{"status --runtime-dir", exitUsage, "", "--runtime-dir needs a value"},
		{"reload", exitUsage, "", "the name of a service is missing"},
		{"reload a b", exitUsage, "", "too many arguments: b"},
		{"reload ../web", exitUsage, "", "error: the service's name"},
		{"reload -- -web", exitUsage, "", "error: the service's name"},
		{"run", exitUsage, "", "hint: supervisor run NAME, or --config FILE"},
		{"run web --config /x/other.toml", exitUsage, "", "NAME is web, but /x/other.toml is the configuration of other"},
		{"fetch", exitUsage, "", "fetch takes one socket"},
		{"check", exitUsage, "", "a configuration file is missing"},
		{"reexec --all web", exitUsage, "", "exclude each other"},
		{"version web", exitUsage, "", "takes no arguments"},
		{"version", exitDone, "supervisor ", ""},
		{"--version", exitDone, "supervisor ", ""},
		{"reload web", exitNotRunning, "", "service web is not running: nobody listens on"},
		{"reload web", exitNotRunning, "", "hint: systemctl start supervisor@web"},
		{"status web", exitNotRunning, "", "not running"},
		{"fds web", exitNotRunning, "", "not running"},
		{"reexec web", exitNotRunning, "", "not running"},
		{"status", exitDone, "", "no services in"},
		{"status --json", exitDone, "[]\n", ""},
	} {
		code, stdout, stderr := invoke(strings.Fields(tc.args)...)
		if code != tc.code || !strings.Contains(stdout, tc.stdout) || !strings.Contains(stderr, tc.stderr) {
			t.Errorf("supervisor %s: exit code %d, want %d\n-- stdout, want %q:\n%s\n-- stderr, want %q:\n%s", tc.args, code, tc.code, tc.stdout, stdout, tc.stderr, stderr)
		}
		if tc.code == exitUsage && stdout != "" || tc.code == exitDone && tc.stderr == "" && stderr != "" {
			t.Errorf("supervisor %s says what does not belong there:\n-- stdout:\n%s\n-- stderr:\n%s", tc.args, stdout, stderr)
		}
	}
}

// TestEveryCommandExplainsItself: the help names the command, and every flag it takes.
func TestEveryCommandExplainsItself(t *testing.T) {
	for _, c := range commands() {
		code, stdout, stderr := invoke(c.name, "--help")
		if code != exitDone || stderr != "" || !strings.HasPrefix(stdout, "usage: supervisor "+c.name) {
			t.Errorf("supervisor %s --help: exit code %d\n%s%s", c.name, code, stdout, stderr)
		}
		f := &flags{}
		c.prepare(f)
		for name := range f.switches {
			if !strings.Contains(c.usage, name) {
				t.Errorf("the help of %s does not name %s", c.name, name)
			}
		}
		for name := range f.texts {
			if !strings.Contains(c.usage, name) {
				t.Errorf("the help of %s does not name %s", c.name, name)
			}
		}
		if !strings.Contains(usage(), "  "+c.name+" ") {
			t.Errorf("the usage does not name %s", c.name)
		}
	}
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	d := &daemon{
		events: []control.Event{
			{Type: control.TypeStep, Step: &control.Step{Name: "check", Took: micro(12345)}},
			{Type: control.TypeStep, Step: &control.Step{Name: "fetch", Took: micro(812), Note: "5 sockets"}},
			{Type: control.TypeNote, Text: "generation 3 drains"},
		},
		result: control.Result{OK: true, Generation: 4, PID: 4711, Took: micro(45100)},
	}
	start(t, dir, "web", d)
	for _, args := range [][]string{
		{"reload", "web", "--drained", "--runtime-dir", dir},
		{"reload", "--runtime-dir=" + dir, "--drained", "web"},
	} {
		d.drained = false
		code, stdout, stderr := invoke(args...)
		want := "check         12.3ms\n" +
			"fetch          812µs  5 sockets\n" +
			"generation 3 drains\n" +
			"web: generation 4 (pid 4711) serves after 45.1ms\n"
		if diff := cmp.Diff(want, stdout); diff != "" || code != exitDone {
			t.Errorf("exit code %d, stdout (-want +got):\n%s", code, diff)
		}
		if diff := cmp.Diff("", stderr); diff != "" {
			t.Errorf("stderr (-want +got):\n%s", diff)
		}
		if !d.drained {
			t.Error("--drained did not arrive")
		}
	}
}

func TestReloadFails(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SUPERVISOR_RUNTIME_DIR", dir)
	start(t, dir, "web", &daemon{
		events: []control.Event{{Type: control.TypeStep, Step: &control.Step{Name: "ready", Took: micro(1000), Err: "exit code 1"}}},
		result: control.Result{
			Error:  "generation 4 exited with code 1 before it was ready; generation 3 still serves",
			Output: "[ALERT] bad \x1b[31mline\x1b[0m\n[ALERT] fatal\n",
			Hint:   "haproxy -c -f /etc/haproxy/haproxy.cfg",
		},
	})
	code, stdout, stderr := invoke("reload", "web")
	want := "supervisor: error: generation 4 exited with code 1 before it was ready; generation 3 still serves\n" +
		"supervisor: output: [ALERT] bad \\x1b[31mline\\x1b[0m\n" +
		"supervisor: output: [ALERT] fatal\n" +
		"supervisor: hint: haproxy -c -f /etc/haproxy/haproxy.cfg\n"
	if diff := cmp.Diff(want, stderr); diff != "" || code != exitFailed {
		t.Errorf("exit code %d, stderr (-want +got):\n%s", code, diff)
	}
	if diff := cmp.Diff("ready          1.0ms  failed: exit code 1\n", stdout); diff != "" {
		t.Errorf("stdout (-want +got):\n%s", diff)
	}
}

func example() control.Status {
	began := time.Now().Add(-90 * time.Minute).UTC().Truncate(time.Second)
	return control.Status{
		V: control.Version, Name: "web", PID: 77, Version: "v1.2.3", Started: began, State: "serving",
		Config:  control.ConfigFile{Path: "/etc/supervisor/web.toml", Sum: strings.Repeat("ab", 32), Changed: true},
		Sockets: 5, Stored: 6, StoreMax: 512,
		Generations: []control.Generation{
			{N: 4, State: "serving", PID: 4711, Since: began, Status: "Ready.\x1b"},
			{N: 3, State: "draining", PID: 4000, Since: began, Slot: 1, Divert: "steer", Phase: "signal", Deadline: time.Now().Add(20 * time.Second), Adopted: true},
			{N: 2, State: "gone", Since: began, Exit: "exit code 0", Ended: began},
		},
		Handoffs: []control.Trace{
			{ID: 12, Kind: "reload", Order: "start-first", Started: began, Took: micro(40000), OK: true, From: 3, To: 4, Steps: []control.Step{
				{Name: "check", Took: micro(10000)}, {Name: "fetch", Took: micro(0)}, {Name: "spawn", Took: micro(10), Note: "pid 4711"}, {Name: "ready", Took: micro(29990)},
			}},
			{ID: 11, Kind: "reload", Order: "start-first", Started: began, Took: micro(100), Error: "no", From: 3, To: 4},
			{ID: 10, Kind: "reload", Order: "start-first", Started: began, Took: micro(100), Error: "check failed", From: 3},
		},
		Restart:  &control.Restart{At: time.Now().Add(time.Minute), Attempt: 2, Reason: "killed by SIGKILL"},
		Warnings: []string{"the clock\nis wrong"},
	}
}

func TestStatus(t *testing.T) {
	dir := t.TempDir()
	d := &daemon{status: example()}
	start(t, dir, "web", d)
	code, stdout, stderr := invoke("status", "web", "--runtime-dir", dir)
	if code != exitDone || stderr != "" {
		t.Errorf("exit code %d, stderr:\n%s", code, stderr)
	}
	for _, want := range []string{
		"web: serving\n",
		"pid 77, version v1.2.3, since",
		"/etc/supervisor/web.toml, sum abababababab, changed since",
		"5 held, 6 of 512 entries",
		"attempt 2 in ",
		`the clock\nis wrong`,
		`  4           serving   4711  1h30m  0     -       "Ready.\x1b"`,
		"  3           draining  4000  1h30m  1     steer   adopted, signal, deadline in 1",
		"exit code 0, 1h30m ago",
		"failed after 100µs: no",
		"  10       reload  3 to none    ",
		"handoff 12, start-first:",
		"  check  10.0ms  |==========                              |",
		"  fetch  0µs     |          =                             |",
		"  spawn  10µs    |          =                             |  pid 4711",
		"  ready  30.0ms  |          ==============================|",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("stdout lacks %q", want)
		}
	}
	if t.Failed() {
		t.Logf("stdout:\n%s", stdout)
	}
	code, stdout, _ = invoke("status", "--json", "web", "--runtime-dir", dir)
	var got control.Status
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != exitDone {
		t.Fatalf("exit code %d: %v", code, err)
	}
	want := d.status
	if diff := cmp.Diff(want.Handoffs, got.Handoffs); diff != "" || got.V != control.Version {
		t.Errorf("JSON of version %d (-want +got):\n%s", got.V, diff)
	}
}

func TestStatusOfAll(t *testing.T) {
	dir := t.TempDir()
	start(t, dir, "web", &daemon{status: example()})
	api := example()
	api.Name, api.State, api.Generations, api.Handoffs = "api", "restarting", nil, nil
	start(t, dir, "api", &daemon{status: api})
	if err := os.MkdirAll(filepath.Join(dir, "dead"), 0o700); err != nil {
		t.Fatal(err)
	}
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "unix", Path: filepath.Join(dir, "dead", control.SocketName)})
	if err != nil {
		t.Fatal(err)
	}
	fd.Close()
	code, _, stderr := invoke("status", "--runtime-dir", dir)
	if code != exitDone || stderr != "" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	// One that cannot be asked is a failure, whatever the others say.
	hangUp(t, filepath.Join(dir, "hangs-up"))
	code, stdout, stderr := invoke("status", "--runtime-dir", dir)
	var lines []string
	for line := range strings.Lines(stdout) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"NAME STATE GENERATION PID AGE DRAINING SOCKETS LAST HANDOFF",
		"api restarting - - - 0 5 -",
		"dead not running - - - - - -",
		"hangs-up unknown - - - - - -",
		"web serving 4 4711 1h30m 1 5 reload ok in 40.0ms, 1h30m ago",
	}
	if diff := cmp.Diff(want, lines); diff != "" || code != exitFailed || !strings.Contains(stderr, "service hangs-up") {
		t.Errorf("exit code %d, stderr %q, stdout (-want +got):\n%s", code, stderr, diff)
	}
	code, stdout, stderr = invoke("status", "--json", "--runtime-dir", dir)
	var all []control.Status
	if err := json.Unmarshal([]byte(stdout), &all); err != nil || code != exitFailed || !strings.Contains(stderr, "service hangs-up") || len(all) != 2 || all[0].Name != "api" {
		t.Errorf("exit code %d, %v, %d services", code, err, len(all))
	}
	// The name of a service that runs is suggested to who mistypes it.
	if code, _, stderr := invoke("reload", "wbe", "--runtime-dir", dir); code != exitNotRunning || !strings.Contains(stderr, `did you mean "web"?`) {
		t.Errorf("exit code %d, stderr:\n%s", code, stderr)
	}
}

// hangUp is a service that closes every connection.
func hangUp(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, control.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

// A file that is gone is said: the next reload fails.
func TestStatusWithoutTheFile(t *testing.T) {
	dir := t.TempDir()
	s := example()
	s.Config.Changed, s.Config.Error = false, "open /etc/supervisor/web.toml: no such file or directory"
	start(t, dir, "web", &daemon{status: s})
	_, stdout, _ := invoke("status", "web", "--runtime-dir", dir)
	if !strings.Contains(stdout, "cannot be read (a reload would fail): open /etc/supervisor/web.toml: no such file") {
		t.Error(stdout)
	}
}

func TestFDs(t *testing.T) {
	dir := t.TempDir()
	d := &daemon{fds: control.FDs{Name: "web", Sockets: []control.Held{
		{Name: "http", Network: "tcp", Address: "127.0.0.1:80", Listening: true, BacklogUsed: 3, BacklogMax: 4096, Cookie: 9, Inode: 1234, Origin: "unit",
			Stored: true, Nonblock: true, Flags: []string{"reuseport"}, Interface: "lo",
			Holders: []control.Holder{{PID: 1, Comm: "systemd"}, {PID: 4711, Generation: 4, Comm: "haproxy"}}},
		{Name: "log", Network: "udp", Address: "[::]:514", Cookie: 10, Inode: 1235, Origin: "fetched"},
	}}}
	start(t, dir, "web", d)
	code, stdout, stderr := invoke("fds", "web", "--runtime-dir", dir)
	want := "" +
		"NAME  KIND  ADDRESS       STATE      BACKLOG  COOKIE  INODE  ORIGIN   STORED  FLAGS                            HOLDERS\n" +
		"http  tcp   127.0.0.1:80  listening  3/4096   9       1234   unit     yes     reuseport,nonblock,interface=lo  systemd(1) haproxy(4711)#4\n" +
		"log   udp   [::]:514      bound      -        10      1235   fetched  no      -                                -\n"
	if diff := cmp.Diff(want, stdout); diff != "" || code != exitDone || stderr != "" {
		t.Errorf("exit code %d, stderr %q, stdout (-want +got):\n%s", code, stderr, diff)
	}
	_, stdout, _ = invoke("fds", "web", "--json", "--runtime-dir", dir)
	var got control.FDs
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d.fds.Sockets, got.Sockets); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
}

func TestReexec(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SUPERVISOR_RUNTIME_DIR", dir)
	web := &daemon{status: example(), result: control.Result{OK: true}}
	start(t, dir, "web", web)
	if code, stdout, stderr := invoke("reexec", "web"); code != exitDone || stdout != "web: pid 77 runs version v2\n" {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	start(t, dir, "api", &daemon{status: example(), result: control.Result{Error: "the binary is gone"}})
	code, stdout, stderr := invoke("reexec", "--all")
	if code != exitFailed || stdout != "web: pid 77 runs version v2\n" || stderr != "supervisor: error: the binary is gone\n" {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.toml"), filepath.Join(dir, "bad.toml")
	for path, text := range map[string]string{
		good: "[worker]\ncommand = [\"/bin/true\"]\n",
		bad:  "[worker]\ncomand = [\"/bin/true\"]\n[ready]\ntimeout = 5\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code, stdout, stderr := invoke("check", good); code != exitDone || stdout != good+": ok\n" || stderr != "" {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, stderr := invoke("check", bad, good, filepath.Join(dir, "none.toml"))
	if code != exitFailed || stdout != good+": ok\n" || strings.Count(stderr, "supervisor: error: "+bad+":") < 2 || !strings.Contains(stderr, "none.toml") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	for operand, want := range map[string]string{
		"nope-nope":                   "hint: supervisor init PRESET nope-nope writes it",
		"nope-nope.toml":              "hint: a NAME without .toml stands for /etc/supervisor/NAME.toml",
		filepath.Join(dir, "no.toml"): "no such file",
	} {
		if code, _, stderr := invoke("check", operand); code != exitFailed || !strings.Contains(stderr, want) {
			t.Errorf("check %s: exit code %d\n%s", operand, code, stderr)
		}
	}
	code, stderr = program(t, "run", "--config", bad, "--runtime-dir", dir)
	if code != exitFailed || !strings.Contains(stderr, "hint: supervisor check "+bad+" shows the same") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	for operand, want := range map[string]string{"web": "/etc/supervisor/web.toml", "web.toml": "web.toml", "./web": "./web"} {
		if got := configPath(operand); got != want {
			t.Errorf("check %s reads %s, want %s", operand, got, want)
		}
	}
}

func TestFetch(t *testing.T) {
	dir := t.TempDir()
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1", Backlog: 7, ReusePort: true})
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	info, err := sys.Inspect(fd.Num())
	if err != nil {
		t.Fatal(err)
	}
	server, err := getsocks.Listen(filepath.Join(dir, "g.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- server.Serve(ctx, func() ([]getsocks.Socket, func()) {
			return []getsocks.Socket{{FD: fd, Interface: "lo"}}, func() {}
		})
	}()
	defer func() { cancel(); <-served }()
	code, stdout, stderr := invoke("fetch", server.Path())
	if code != exitDone || stderr != "" || !strings.Contains(stdout, info.Address+"  listening  0/7") || !strings.Contains(stdout, "reuseport,interface=lo") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	_, stdout, _ = invoke("fetch", "--json", server.Path())
	var got fetched
	want := fetched{V: 1, Socket: server.Path(), Sockets: []fetchedSocket{{Network: "tcp", Address: info.Address, Listening: true, BacklogMax: 7,
		Cookie: info.Cookie, Inode: info.Inode, Flags: []string{"reuseport"}, Interface: "lo"}}}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
	nobody := filepath.Join(dir, "nobody")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: nobody})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for path, hint := range map[string]string{filepath.Join(dir, "none"): `hint: the path is that of "stats socket"`, nobody: "does HAProxy run?"} {
		if code, _, stderr := invoke("fetch", path); code != exitFailed || !strings.Contains(stderr, hint) {
			t.Errorf("exit code %d\n%s", code, stderr)
		}
	}
}

func TestDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0µs", 812 * time.Microsecond: "812µs", 1500 * time.Microsecond: "1.5ms", 45100 * time.Microsecond: "45.1ms", 250 * time.Millisecond: "250ms",
		2340 * time.Millisecond: "2.34s", 61 * time.Second: "1m1s", 3 * time.Hour: "3h0m", 50 * time.Hour: "2d2h",
	} {
		if got := short(d); got != want {
			t.Errorf("short(%v) = %q, want %q", d, got, want)
		}
	}
}
