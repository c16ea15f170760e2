//go:build vm

package vm

import (
	"strings"
	"testing"
)

// A reload that fails says so also to a unit that stops: only the service's own end excuses it.
var _ = scenario("i-reload-by-another-unit", func(t *testing.T, m *Machine) {
	s := m.service("foreign", goWorker("foreign", socketTable("http", "127.0.0.1:6560")), "")
	s.arguments()
	s.start()
	path := "/etc/supervisor/foreign.toml"
	s.WriteFile(path, replace(t, s.ReadFile(path), "command", "comand"))
	s.WriteFile("/etc/systemd/system/deploy.service", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\n"+
		"ExecStop=sh -c 'supervisor reload foreign; echo $? > /run/deploy'\n")
	s.Systemctl("daemon-reload")
	s.Systemctl("start", "deploy")
	s.Systemctl("stop", "deploy")
	if code := strings.TrimSpace(s.ReadFile("/run/deploy")); code != "1" {
		t.Errorf("the failed reload says %s to a unit that stops, want 1", code)
	}
})
