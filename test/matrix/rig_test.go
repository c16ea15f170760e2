//go:build vm

package matrix

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/test/load"
	"github.com/8265a91a/supervisor/test/vm"
)

// rig is a server set up as a service of the machine.
type rig struct {
	*vm.Machine
	t          *testing.T
	s          *server
	port       int
	unit       string
	toml       string // as it is meant to be
	row        *row
	configured *config.Config
}

func newRig(t *testing.T, m *vm.Machine, s *server, port int) *rig {
	r := &rig{Machine: m.With(t), t: t, s: s, port: port, unit: "supervisor@" + s.name + ".service"}
	r.Run("mkdir", "-p", "/srv/"+s.name)
	for path, content := range s.files {
		r.WriteFile(r.expand(path), r.expand(content))
	}
	r.initialize()
	if s.setup != "" {
		r.Sh(r.expand(s.setup))
	}
	r.toml = r.ReadFile(r.config())
	cfg, err := config.Parse(s.name, r.config(), []byte(r.toml))
	if err != nil {
		t.Fatal(err)
	}
	r.configured = cfg
	r.row = newRow(r)
	t.Cleanup(r.remove)
	return r
}

func (r *rig) expand(text string) string { return r.s.expand(text, r.port) }

func (r *rig) config() string { return "/etc/supervisor/" + r.s.name + ".toml" }

// initialize writes NAME.toml and the units.
func (r *rig) initialize() {
	r.t.Helper()
	if r.s.preset == "" {
		r.WriteFile(r.config(), r.expand(r.s.toml))
		if r.s.dropin != "" {
			r.WriteFile("/etc/systemd/system/"+r.unit+".d/test.conf", "[Service]\n"+r.s.dropin+"\n")
		}
	} else {
		args := []string{"supervisor", "init", r.s.preset, r.s.name}
		if r.s.preset != "haproxy" {
			args = append(args, "--listen", r.expand("@ADDR@"))
		}
		r.Run(args...)
		text := r.ReadFile(r.config())
		for i := 0; i+1 < len(r.s.edit); i += 2 {
			old := r.expand(r.s.edit[i])
			if !strings.Contains(text, old) {
				r.t.Fatalf("the preset's %s has no %q:\n%s", r.config(), old, text)
			}
			text = strings.ReplaceAll(text, old, r.expand(r.s.edit[i+1]))
		}
		r.WriteFile(r.config(), text)
	}
	r.Systemctl("daemon-reload")
}

// signalFirst tells whether the old generation ends before the next one starts.
func (r *rig) signalFirst() bool { return r.configured.Handoff.Order == config.OrderSignalFirst }

// held are the sockets of the service.
func (r *rig) held() []control.Held {
	r.t.Helper()
	var fds control.FDs
	if err := json.Unmarshal([]byte(r.Run("supervisor", "fds", r.s.name, "--json")), &fds); err != nil {
		r.t.Fatal(err)
	}
	return fds.Sockets
}

// start starts the service; its sockets come with it, as its drop-in names them.
func (r *rig) start() {
	r.t.Helper()
	if sockets := r.sockets(); len(sockets) > 0 {
		r.Systemctl(append([]string{"start"}, sockets...)...)
	}
	if res := r.TrySystemctl("start", r.unit); res.Code != 0 {
		r.t.Fatalf("start: %s\n%s", res.Stderr, r.tail())
	}
}

func (r *rig) sockets() []string { return strings.Fields(r.Property(r.unit, "TriggeredBy")) }

func (r *rig) stop() {
	r.t.Helper()
	sockets := r.sockets()
	r.TrySystemctl("stop", r.unit)
	if len(sockets) > 0 {
		r.TrySystemctl(append([]string{"stop"}, sockets...)...)
	}
	if left := r.PIDs(r.unit); len(left) > 0 {
		r.t.Errorf("processes left after stop: %v\n%s", left, r.tail())
		for _, pid := range left {
			r.Kill(pid, 9)
		}
	}
}

func (r *rig) remove() {
	r.stop()
	r.TrySystemctl("reset-failed", r.unit)
	if r.t.Failed() {
		r.t.Logf("journal:\n%s", r.tail())
	}
}

func (r *rig) tail() string {
	lines := strings.Split(r.Journal(r.unit), "\n")
	const most = 60
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}

func (r *rig) status() control.Status {
	r.t.Helper()
	var status control.Status
	res := r.Try("supervisor", "status", r.s.name, "--json")
	if err := json.Unmarshal([]byte(res.Stdout), &status); err != nil || res.Code != 0 {
		r.t.Fatalf("supervisor status: exit %d, %v: %s%s", res.Code, err, res.Stdout, res.Stderr)
	}
	return status
}

// drained waits until only the serving generation lives.
func (r *rig) drained() {
	r.t.Helper()
	r.Eventually(90*time.Second, func() string {
		status := r.status()
		for _, g := range status.Generations {
			if g.State != "gone" && g.State != "serving" {
				return fmt.Sprintf("generation %d is %s (%s)", g.N, g.State, g.Phase)
			}
		}
		return ""
	})
}

// load is what the clients do.
func (r *rig) load(clients map[load.Class]int) load.Options {
	return load.Options{
		Target: load.Target{Network: r.s.network(), Address: r.expand("@ADDR@"), TLS: r.s.tls},
		Script: r.s.script, Clients: clients, Pause: 10 * time.Millisecond,
	}
}

// under runs do under load, and counts datagrams too where the server answers them.
func (r *rig) under(clients map[load.Class]int, do func()) load.Result {
	r.t.Helper()
	options := r.load(clients)
	var datagrams *load.Run
	if clients[load.UDP] > 0 {
		o := options
		o.Script, o.Clients = r.s.udp, map[load.Class]int{load.UDP: clients[load.UDP]}
		options.Clients = without(clients, load.UDP)
		datagrams = r.Load(o)
	}
	run := r.Load(options)
	r.progress(run)
	do()
	r.progress(run)
	result := run.Stop()
	if datagrams != nil {
		result.Classes[load.UDP] = datagrams.Stop().Classes[load.UDP]
	}
	return result
}

func without(clients map[load.Class]int, class load.Class) map[load.Class]int {
	rest := map[load.Class]int{}
	for c, n := range clients {
		if c != class {
			rest[c] = n
		}
	}
	return rest
}

// progress waits until some requests more were begun.
func (r *rig) progress(run *load.Run) {
	r.t.Helper()
	from := run.Sent()
	r.Eventually(30*time.Second, func() string {
		if sent := run.Sent() - from; sent < 30 {
			return fmt.Sprintf("only %d requests sent:\n%s\n%s", sent, run.Snapshot(), r.tail())
		}
		return ""
	})
}
