package handoff

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/activation"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// command builds what is executed: conventions, placeholders, environment, the exec shim where it is needed.
func (h *Handoff) command(g *Generation) (worker.Command, error) {
	layout, err := h.layout(g)
	if err != nil {
		return worker.Command{}, err
	}
	cmd, err := h.expand(g, layout, g.Config.Worker.Command)
	if err != nil {
		return worker.Command{}, err
	}
	return cmd, enterable(g.Config.Worker.Command[0], cmd.Dir)
}

// enterable finds that the working directory is missing: the exec shim in between would be named in the program's place.
func enterable(program, dir string) error {
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		err = fmt.Errorf("%s is no directory", dir)
	}
	if err != nil {
		return fmt.Errorf("start %s in worker.directory: %w", program, err)
	}
	return nil
}

// checkCommand is the command of worker.check: with the sockets only where the configuration wants that, since
// some checks need them and some crash with them.
func (h *Handoff) checkCommand() (worker.Command, error) {
	preview := h.preview()
	layout := activation.Layout{Files: []int{0, 1, 2}, Getsocks: -1}
	if h.Config.Worker.CheckWithSockets {
		var err error
		if layout, err = h.layout(preview); err != nil {
			return worker.Command{}, err
		}
	}
	return h.expand(preview, layout, h.Config.Worker.Check)
}

// preview is the generation to come, as the check step shows it.
func (h *Handoff) preview() *Generation {
	g := &Generation{Config: h.Config, Slot: h.slot(), Dir: h.checkDir()}
	if h.Old != nil {
		g.N = h.Old.N + 1
	}
	return g
}

// checkLate expands what is used only when the old worker has been given up, or when the new one is: a wrong name must
// not be found then.
func (h *Handoff) checkLate() error {
	cfg, values := h.Config, valuesOf(h.Host, h.preview())
	if _, err := expandAll(cfg.Drain.Command, values); err != nil {
		return fmt.Errorf("drain.command: %w", err)
	}
	for _, p := range []struct{ key, path string }{
		{"worker.pid_file", cfg.Worker.PIDFile}, {"worker.pid_link", cfg.Worker.PIDLink}, {"handoff.getsocks", cfg.Handoff.Getsocks},
	} {
		if _, err := config.Expand(p.path, values); err != nil {
			return fmt.Errorf("%s: %w", p.key, err)
		}
	}
	return nil
}

// checkDir is the ${dir} of worker.check, which is no generation's.
func (h *Handoff) checkDir() string {
	_, runtime, _ := h.Host.Paths()
	return filepath.Join(runtime, "check")
}

// duplicate makes a borrowed descriptor that a worker pushed into one that lives until the handoff ends: the worker may take
// back what it pushed at any moment, and the child would inherit whatever has the number then.
func (h *Handoff) duplicate(fd int) (*sys.FD, error) {
	dup, err := sys.DupNum(fd)
	if err != nil {
		return nil, fmt.Errorf("duplicate what a worker pushed: %w", err)
	}
	h.duplicates = append(h.duplicates, dup)
	return dup, nil
}

// layout decides which descriptor becomes which in the child.
func (h *Handoff) layout(g *Generation) (activation.Layout, error) {
	var list []activation.Socket
	var err error
	duplicate := func(a *activation.Socket, fd int) {
		var dup *sys.FD
		if dup, err = h.duplicate(fd); err == nil {
			a.FD = dup.Num()
		}
	}
	unconfigured := Unconfigured(g.Config)
	h.Host.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(configuredNames(g.Config)) {
			if unconfigured(s) {
				continue // or the newcomer would keep an address alive that it is to give up
			}
			a := describe(s, g.Slot)
			if s.Origin == sockets.Pushed && err == nil {
				duplicate(&a, a.FD)
			}
			list = append(list, a)
		}
		for i, e := range h.Host.Pushed() { // several may have one name
			a := activation.Socket{Name: fmt.Sprintf("pushed:%d:%s", i, e.Name), FDName: e.Name}
			if err == nil {
				duplicate(&a, e.FD)
			}
			list = append(list, a)
		}
	})
	if err != nil {
		return activation.Layout{}, err
	}
	options := activation.Options{Generation: g.N}
	if slices.Contains(g.Config.Worker.Conventions, config.ConventionGetsocks) && g.N > 0 {
		offered, err := h.offer(g.Slot)
		if err != nil {
			return activation.Layout{}, err
		}
		p, err := newPairing()
		if err != nil {
			return activation.Layout{}, err
		}
		h.pair.close()
		h.pair = p
		options.Getsocks = p.child
		p.serve(offered)
	}
	conventions := g.Config.Worker.Conventions
	if g.Process == nil && g.Notify == nil {
		conventions = withoutBind(conventions)
	}
	if slices.Contains(conventions, config.ConventionBind) {
		b, err := newInterception()
		if err != nil {
			return activation.Layout{}, err
		}
		h.bindings.close()
		h.bindings = b
		options.Bind = b.child
	}
	return activation.Plan(conventions, list, [3]int{0, 1, 2}, options)
}

func describe(s *sockets.Socket, slot int) activation.Socket {
	a := activation.Socket{Name: s.Name, FDName: s.FDName, Network: s.Info.Network, Host: s.Info.Host, Port: s.Info.Port, FD: s.Slot(slot).Num()}
	if strings.HasPrefix(s.Info.Network, "unix") {
		a.Path = s.Info.Address
	}
	return a
}

func configuredNames(cfg *config.Config) []string {
	names := make([]string, len(cfg.Sockets))
	for i := range cfg.Sockets {
		names[i] = cfg.Sockets[i].Name
	}
	return names
}

// expand fills in the placeholders and the environment.
func (h *Handoff) expand(g *Generation, layout activation.Layout, argv []string) (worker.Command, error) {
	h.Host.Do(func(held *sockets.Set) { g.sockets = socketValues(held, g, layout) })
	values := valuesOf(h.Host, g)
	values.GetsocksFD = layout.Getsocks
	args, err := expandAll(argv, values)
	if err != nil {
		return worker.Command{}, err
	}
	env := baseEnvironment(os.Environ()) // of each variable the last holds: what is the supervisor's comes last
	for key, value := range g.Config.Worker.Environment {
		if value, err = config.Expand(value, values); err != nil {
			return worker.Command{}, fmt.Errorf("environment %s: %w", key, err)
		}
		env = append(env, key+"="+value)
	}
	env = append(env, layout.Env...)
	env = append(env, h.Host.Marker(g.N))
	if g.Notify != nil {
		env = append(env, "NOTIFY_SOCKET="+g.Notify.Path())
	}
	if w := g.Config.Worker.Watchdog; w > 0 {
		env = append(env, fmt.Sprintf("WATCHDOG_USEC=%d", w.Microseconds()))
	}
	if layout.Shim || config.UsesPID(append(args, env...)...) {
		if err := executable(args[0]); err != nil {
			return worker.Command{}, err
		}
		args = activation.ShimArgs(selfPath, layout, args)
	}
	dir, err := config.Expand(g.Config.Worker.Directory, values)
	if err != nil {
		return worker.Command{}, fmt.Errorf("worker.directory: %w", err)
	}
	return worker.Command{Argv: args, Env: env, Dir: dir, Files: layout.Files}, nil
}

// executable finds what the exec shim would find too late for a clear sentence: it is another process.
func executable(program string) error {
	st, err := os.Stat(program)
	switch {
	case err != nil:
		return fmt.Errorf("start the worker: %w", err)
	case !st.Mode().IsRegular() || st.Mode()&0o111 == 0:
		return fmt.Errorf("start the worker: %s is not executable", program)
	}
	return nil
}

// selfPath is this binary, also after the file was replaced by an upgrade.
const selfPath = "/proc/self/exe"

// socketValues are the sockets as the placeholders of g show them, with the descriptors that layout gives its worker.
func socketValues(held *sockets.Set, g *Generation, layout activation.Layout) map[string]config.SocketValue {
	values := map[string]config.SocketValue{}
	for i := range g.Config.Sockets { // before the first start the check sees what will be bound
		a := g.Config.Sockets[i].Listen
		v := config.SocketValue{FD: -1, Addr: a.String(), Host: a.Host, Path: a.Path}
		if a.Port != 0 {
			v.Port = strconv.Itoa(int(a.Port))
		}
		if a.Path != "" {
			v.Addr = a.Path
		}
		values[g.Config.Sockets[i].Name] = v
	}
	seen := map[string]bool{}
	unconfigured := Unconfigured(g.Config)
	for _, s := range held.Ordered(nil) {
		if unconfigured(s) {
			continue // another generation's, perhaps of the same name
		}
		v := config.SocketValue{FD: -1, Addr: s.Info.Address, Host: s.Info.Host, Port: portText(s.Info)}
		if fd, ok := layout.ChildFD[s.Name]; ok {
			v.FD = fd
		}
		if strings.HasPrefix(s.Info.Network, "unix") {
			v.Path = s.Info.Address
		}
		values[s.Name] = v
		if !seen[s.FDName] {
			values[s.FDName] = v
		}
		seen[s.FDName] = true
	}
	return values
}

// portText is empty for a socket that has no port.
func portText(info sys.Socket) string {
	if info.Port == 0 {
		return ""
	}
	return strconv.Itoa(info.Port)
}

// Values are what the placeholders stand for in g. It runs on the loop.
func Values(host Host, held *sockets.Set, g *Generation) *config.Values {
	v := &config.Values{Generation: g.N, Slot: g.Slot, Dir: g.Dir, GetsocksFD: -1}
	v.Name, v.Runtime, v.Getsocks = host.Paths()
	v.Sockets = socketValues(held, g, activation.Layout{})
	maps.Copy(v.Sockets, g.sockets)
	return v
}

// valuesOf is Values for everybody else.
func valuesOf(host Host, g *Generation) (v *config.Values) {
	host.Do(func(held *sockets.Set) { v = Values(host, held, g) })
	return v
}

func expandAll(list []string, values *config.Values) ([]string, error) {
	out := make([]string, len(list))
	for i, s := range list {
		var err error
		if out[i], err = config.Expand(s, values); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// baseEnvironment is the service's environment without what is the supervisor's own, or what would make a worker
// take itself for somebody else's child.
func baseEnvironment(environ []string) []string {
	var env []string
	for _, kv := range environ {
		key, _, _ := strings.Cut(kv, "=")
		switch {
		case strings.HasPrefix(key, "LISTEN_"), strings.HasPrefix(key, "WATCHDOG_"), strings.HasPrefix(key, "SUPERVISOR_"),
			strings.HasPrefix(key, "HAPROXY_MWORKER"), key == "HAPROXY_PROCESSES", key == "HAPROXY_LOAD_SUCCESS",
			key == "NOTIFY_SOCKET", key == "FDSTORE", key == "MAINPID", key == "MAINPIDFDID":
			continue
		}
		env = append(env, kv)
	}
	return env
}
