package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// prepare builds what is needed and writes the configuration.
func (d *demo) prepare() error {
	if err := build(d.binary, "./cmd/supervisor"); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	d.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		d.server = "the tests' own worker (HAProxy is not installed)"
		return d.prepareWorker()
	}
	d.server = "HAProxy, its configuration unchanged"
	return d.prepareHAProxy(haproxy)
}

func build(to, pkg string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", to, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (d *demo) prepareHAProxy(haproxy string) error {
	admin, cfg := filepath.Join(d.dir, "admin.sock"), filepath.Join(d.dir, "haproxy.cfg")
	err := os.WriteFile(cfg, []byte(fmt.Sprintf(`global
    stats socket %s mode 600 level admin expose-fd listeners
defaults
    mode http
    option idle-close-on-response
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend web
    bind %s
    http-request return status 200 content-type text/plain lf-string "pid=%%pid\n"
`, admin, d.address)), 0o644)
	if err != nil {
		return err
	}
	return d.writeConfig(fmt.Sprintf(`[worker]
command = [%[1]q, "-db", "-f", %[2]q, "-x", "sockpair@${getsocks_fd}"]
check   = [%[1]q, "-c", "-f", %[2]q]
sockets = ["getsocks"]

[ready]
when   = ["haproxy"]
socket = %[3]q

[drain]
divert = "none"
signal = "SIGUSR1"

[handoff]
fetch    = "getsocks"
getsocks = %[3]q
`, haproxy, cfg, admin))
}

func (d *demo) prepareWorker() error {
	worker := filepath.Join(d.dir, "worker")
	if err := build(worker, "./test/worker"); err != nil {
		return err
	}
	return d.writeConfig(fmt.Sprintf(`[worker]
command = [%q, "-generation", "${generation}"]

[ready]
when = ["notify"]

[drain]
signal = "SIGTERM"

[[socket]]
name   = "http"
listen = %q
`, worker, d.address))
}

func (d *demo) writeConfig(text string) error {
	return os.WriteFile(filepath.Join(d.dir, "demo.toml"), []byte(text), 0o644)
}
