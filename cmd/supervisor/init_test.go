package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/units"
)

// written lists the files below root with their contents.
func written(t *testing.T, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		found[strings.TrimPrefix(path, root)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// token is what init fills in.
var token = regexp.MustCompile("@[A-Z]+@")

func TestEveryPresetIsWhole(t *testing.T) {
	for _, name := range presetNames() {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			code, stdout, stderr := invoke("init", name, "test", "--root", root)
			if code != exitDone || stderr != "" {
				t.Fatalf("exit %d: %s", code, stderr)
			}
			c, err := config.Load(filepath.Join(root, "etc/supervisor/test.toml"))
			if err != nil {
				t.Fatal(err)
			}
			if c.Worker.Command[0] == "" {
				t.Error("no command")
			}
			p, err := loadPreset(name)
			if err != nil {
				t.Fatal(err)
			}
			if p.Title == "" || p.Change == "" || p.Limits == "" {
				t.Error("the preset does not say what it is, what to change, or what it cannot promise")
			}
			files := written(t, root)
			for path, content := range files {
				if token.MatchString(content) {
					t.Errorf("%s is not filled in:\n%s", path, content)
				}
				if !strings.Contains(stdout, "wrote "+root+path) {
					t.Errorf("%s was written without a word", path)
				}
			}
			if token.MatchString(stdout) || !strings.Contains(stdout, "systemctl enable --now ") {
				t.Errorf("said:\n%s", stdout)
			}
		})
	}
}

// A worker that must not run as root gets sockets that the service's own user can steer.
func TestOwnUserBindsItsOwnSockets(t *testing.T) {
	for _, name := range presetNames() {
		p, err := loadPreset(name)
		if err != nil {
			t.Fatal(err)
		}
		if p.User != "" && p.Sockets != "bound" || p.User == "" && p.Sockets == "bound" {
			t.Errorf("%s: user %q, but sockets = %q", name, p.User, p.Sockets)
		}
	}
}

func TestInitWritesUnits(t *testing.T) {
	root := t.TempDir()
	code, stdout, stderr := invoke("init", "unbound", "dns", "--root", root, "--listen", "192.0.2.1:53,[::1]:53", "--harden=any")
	if code != exitDone {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	files := written(t, root)
	const dir = "/etc/systemd/system/"
	var names []string
	for path := range files {
		names = append(names, path)
	}
	want := map[string]bool{
		"/etc/supervisor/dns.toml": true, dir + "supervisor@dns.service.d/preset.conf": true, dir + "supervisor@dns.service.d/hardening.conf": true,
		dir + "supervisor-dns-dns.socket": true, dir + "supervisor-dns-dns-udp.socket": true,
		dir + "supervisor-dns-dns-2.socket": true, dir + "supervisor-dns-dns-udp-2.socket": true,
	}
	got := map[string]bool{}
	for _, n := range names {
		got[n] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	socket := `# Written by "supervisor init unbound dns".
[Unit]
Description=Socket dns-udp of service dns
Documentation=man:supervisor(8)

[Socket]
ListenDatagram=192.0.2.1:53
FileDescriptorName=dns-udp
Service=supervisor@dns.service
# The address may come up after the socket.
FreeBind=yes
# Two generations have a socket each; with this from the start, no connection waits when the second is made.
ReusePort=yes
# The default closes the socket for good when connections come in while the service does not start.
TriggerLimitIntervalSec=0

[Install]
WantedBy=sockets.target
`
	if diff := cmp.Diff(socket, files[dir+"supervisor-dns-dns-udp.socket"]); diff != "" {
		t.Error(diff)
	}
	const next = `Then:
  systemctl disable --now unbound.service
  systemctl daemon-reload
  systemctl enable --now supervisor-dns-dns.socket supervisor-dns-dns-udp.socket supervisor-dns-dns-2.socket supervisor-dns-dns-udp-2.socket supervisor@dns.service
`
	if !strings.HasSuffix(stdout, next) {
		t.Errorf("said:\n%s", stdout)
	}
}

func TestInitForAUser(t *testing.T) {
	code, stdout, stderr := invoke("init", "go", "api", "--dry-run", "--listen", "0.0.0.0:80,[::]:80")
	if code != exitDone {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for _, part := range []string{
		"listen = \"0.0.0.0:80\"\n\n", "listen = \"[::]:80\"\nv6only = true\n",
		"User=www-data\nNoNewPrivileges=yes\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n", "supervisor check api\n",
	} {
		if !strings.Contains(stdout, part) {
			t.Errorf("%q is missing in:\n%s", part, stdout)
		}
	}
}

func TestInitOverwritesNothing(t *testing.T) {
	root := t.TempDir()
	if code, _, stderr := invoke("init", "nginx", "web", "--root", root); code != exitDone {
		t.Fatal(stderr)
	}
	dropin := filepath.Join(root, "etc/systemd/system/supervisor@web.service.d/preset.conf")
	if err := os.WriteFile(dropin, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, "etc/supervisor/web.toml")); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := invoke("init", "nginx", "web", "--root", root)
	if code != exitFailed || stdout != "" || !strings.Contains(stderr, dropin+" exists already, nothing is written") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	if _, there := written(t, root)["/etc/supervisor/web.toml"]; there {
		t.Error("a file was written beside one that was there")
	}
}

func TestInitRefuses(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", "the name of a preset is missing"},
		{"ngin web", `there is no preset "ngin"` + "\nsupervisor: hint: did you mean \"nginx\"?"},
		{"nginx a/b", `the service's name "a/b"`},
		{"nginx web --listen localhost:80", "names are not looked up"},
		{"nginx web --listen /run/web.sock", "does not do with a Unix socket"},
		{"nginx web --listen udp:127.0.0.1:80", "tcp are what nginx needs"},
		{"haproxy web --listen :80", "binds its sockets by itself"},
		{"java web --listen :80,:81", "takes one socket only"},
		{"gunicorn web --listen :80,:81", "takes one socket only"},
		{"nginx", "hint: supervisor init nginx NAME"},
		{"go web.toml", "hint: supervisor init go web\n"},
		{"--list web", "--list takes no arguments: web"},
		{"sshd login --harden any", "--harden is not for sshd"},
		{"sshd login --harden known", "--harden is not for sshd"},
		{"nginx web --harden most", `no grade of hardening "most"`},
	} {
		code, stdout, stderr := invoke(append([]string{"init", "--root", t.TempDir()}, strings.Fields(c.args)...)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit %d: %s%s", c.args, code, stdout, stderr)
		}
	}
}

// A command that names its socket has room for no second one, of which nobody would tell the worker.
func TestPresetsThatNameTheirSocketTakeOne(t *testing.T) {
	named := 0
	for _, name := range presetNames() {
		p, err := loadPreset(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(p.service, ":"+p.Socket+"}") {
			named++
			if !p.Single {
				t.Errorf("%s names ${...:%s} and takes more than one address", name, p.Socket)
			}
		}
	}
	if named < 4 {
		t.Errorf("only %d presets name their socket", named)
	}
}

// What is to be changed names the addresses that were asked for.
func TestInitSaysTheAddressesGiven(t *testing.T) {
	for preset, lines := range map[string]string{
		"apache2":   "    Listen 192.0.2.7:471\n    Listen [2001:db8::7]:472\n",
		"php-fpm":   "    listen = 192.0.2.7:471\n    listen = [2001:db8::7]:472\n",
		"unbound":   "    interface: 192.0.2.7@471\n    interface: 2001:db8::7@472\n",
		"dnsmasq":   "    listen-address=192.0.2.7\n    listen-address=2001:db8::7\n",
		"mosquitto": "    listener 471 192.0.2.7\n    listener 472 2001:db8::7\n",
		"h2o":       "    host: 192.0.2.7, port: 471\n    host: 2001:db8::7, port: 472\n",
		"dovecot":   "    listen = 192.0.2.7 and port = 471\n    listen = 2001:db8::7 and port = 472\n",
		"nginx":     "    listen 192.0.2.7:471;\n    listen [2001:db8::7]:472;\n",
		"puma":      "    bind \"tcp://192.0.2.7:471\"\n    bind \"tcp://[2001:db8::7]:472\"\n",
		"go":        "    serve(w.Listen(\"http\", \"tcp\", \"192.0.2.7:471\"))\n    serve(w.Listen(\"http-2\", \"tcp\", \"[2001:db8::7]:472\"))\n",
		"redis":     "    bind 192.0.2.7\n    port 471\n",
	} {
		addresses := "192.0.2.7:471,[2001:db8::7]:472"
		if preset == "redis" {
			addresses = "192.0.2.7:471"
		}
		code, stdout, stderr := invoke("init", preset, "web", "--dry-run", "--listen", addresses)
		if code != exitDone || !strings.Contains(stdout, strings.ReplaceAll("\n"+lines, "\n    ", "\n      ")) {
			t.Errorf("%s: exit %d: %s%s", preset, code, stdout, stderr)
		}
	}
	if _, stdout, _ := invoke("init", "go", "web", "--dry-run", "--listen", "/run/web.sock"); !strings.Contains(stdout, `w.Listen("http", "unix", "/run/web.sock")`) {
		t.Error(stdout)
	}
}

// What a generation saves, and where it looks for it, does not depend on where the supervisor runs.
func TestRedisHasItsDirectory(t *testing.T) {
	_, stdout, _ := invoke("init", "redis", "web", "--dry-run")
	if !strings.Contains(stdout, "\ndirectory = \"/var/lib/redis\"") || strings.Contains(stdout, "WorkingDirectory") {
		t.Error(stdout)
	}
}

func TestInitLists(t *testing.T) {
	code, stdout, _ := invoke("init", "--list")
	if code != exitDone {
		t.Errorf("exit %d", code)
	}
	for _, name := range strings.Fields("haproxy nginx lighttpd apache2 caddy php-fpm gunicorn uvicorn puma node go java redis unbound dovecot sshd") {
		if !strings.Contains(stdout, "\n"+name+" ") {
			t.Errorf("%s is not listed", name)
		}
	}
}

func TestExamplesLoad(t *testing.T) {
	files, err := fs.Glob(units.Files, "examples/*/web.toml")
	if err != nil || len(files) < 2 {
		t.Fatalf("examples: %q, %v", files, err)
	}
	for _, file := range files {
		data, err := fs.ReadFile(units.Files, file)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := config.Parse("web", file, data); err != nil || len(c.Warnings) > 0 {
			t.Errorf("%s: %v, %v", file, err, c)
		}
	}
}
