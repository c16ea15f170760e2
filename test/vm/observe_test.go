//go:build vm

package vm

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/8265a91a/supervisor/internal/control"
)

// view is a service as systemd and its supervisor see it.
type view struct {
	main      int
	state     string // ActiveState/SubState
	stored    int
	processes int
	status    control.Status
	err       error  // why there is no status
	names     string // of the entries in the FD store, where they were looked at (see quieted) and are shown
}

// view looks without starting more than one process in the container: it is done hundreds of times.
func (s *service) view() (v view) {
	s.t.Helper()
	properties := map[string]string{}
	shown := s.TrySystemctl("show", "-p", "MainPID,ActiveState,SubState,NFileDescriptorStore,ControlGroup", s.unit)
	for end := time.Now().Add(10 * time.Second); shown.Code != 0 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		shown = s.TrySystemctl("show", "-p", "MainPID,ActiveState,SubState,NFileDescriptorStore,ControlGroup", s.unit) // systemd executes itself again
	}
	for line := range strings.Lines(shown.Stdout) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		properties[key] = value
	}
	v.main, _ = strconv.Atoi(properties["MainPID"])
	v.stored, _ = strconv.Atoi(properties["NFileDescriptorStore"])
	v.state = properties["ActiveState"] + "/" + properties["SubState"]
	if group := properties["ControlGroup"]; group != "" {
		list, _ := os.ReadFile(s.Path("/sys/fs/cgroup" + group + "/cgroup.procs"))
		v.processes = strings.Count(string(list), "\n")
	}
	v.status, v.err = s.ask()
	return v
}

// ask asks the supervisor for its status over the control socket.
func (s *service) ask() (control.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	client, err := control.Dial(ctx, s.Path("/run/supervisor/"+s.name))
	if err != nil {
		return control.Status{}, err
	}
	defer client.Close()
	return client.Status(ctx)
}

// tryReload reloads over the control socket and waits for the end of the old generation, too. It returns what went wrong.
func (s *service) tryReload() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, err := control.Dial(ctx, s.Path("/run/supervisor/"+s.name))
	if err != nil {
		return err
	}
	defer client.Close()
	result, err := client.Reload(ctx, true, nil)
	if err == nil && !result.OK {
		err = fmt.Errorf("%s", result.Error)
	}
	return err
}

// quiet says what is wrong with a service that should have one supervisor, one serving generation and nothing else;
// stored is the number of entries that its FD store must have, -1 for any.
func (v view) quiet(stored int) string {
	switch {
	case v.state != "active/running":
		return "the unit is " + v.state
	case v.err != nil:
		return "no status: " + v.err.Error()
	case v.status.PID != v.main:
		return fmt.Sprintf("process %d answers, MainPID is %d", v.status.PID, v.main)
	case v.status.State != "serving":
		return "the supervisor is " + v.status.State
	}
	serving := 0
	for _, g := range v.status.Generations {
		switch g.State {
		case "serving":
			serving++
		case "gone":
		default:
			return fmt.Sprintf("generation %d is %s %s", g.N, g.State, g.Phase)
		}
	}
	switch {
	case serving != 1:
		return fmt.Sprintf("%d generations serve", serving)
	case v.processes != 2:
		return fmt.Sprintf("%d processes", v.processes)
	case v.stored != v.status.Stored: // systemd has not read all yet
		return fmt.Sprintf("%d entries in the FD store, the supervisor believes %d", v.stored, v.status.Stored)
	case stored >= 0 && v.stored != stored:
		return fmt.Sprintf("%d entries in the FD store, want %d", v.stored, stored)
	}
	return ""
}

// quieted waits for that and returns the last view.
func (s *service) quieted(stored int, limit time.Duration) (v view, problem string) {
	s.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		if v = s.view(); v.quiet(stored) == "" {
			v.names = s.entryNames(v.serving().N)
			return v, ""
		}
		if time.Now().After(end) {
			return v, v.quiet(stored)
		}
	}
}

// quietedAs is quieted for a service whose FD store must hold what it held in base.
func (s *service) quietedAs(base view, limit time.Duration) (v view, problem string) {
	s.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		if v, problem = s.quieted(base.stored, time.Until(end)); problem == "" {
			if v.names == base.names {
				return v, ""
			}
			problem = fmt.Sprintf("the FD store holds %s, not %s", v.names, base.names)
		}
		if time.Now().After(end) {
			return v, problem
		}
	}
}

// entryNames are the names of the entries in the FD store, where systemd shows them, with N for the generation that serves.
func (s *service) entryNames(serving int) string {
	s.t.Helper()
	if !s.FDStoreShown() {
		return ""
	}
	var names []string
	for _, e := range s.FDStore(s.unit) {
		name := e.Name
		for _, prefix := range []string{"supervisor.worker.", "supervisor.notify.", "supervisor.bind."} {
			if name == prefix+strconv.Itoa(serving) {
				name = prefix + "N"
			}
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// untilStarting waits until a generation is starting.
func (s *service) untilStarting() {
	s.t.Helper()
	s.Eventually(30*time.Second, func() string {
		status, err := s.ask()
		if !slices.ContainsFunc(status.Generations, func(g control.Generation) bool { return g.State == "starting" && g.PID != 0 }) {
			return fmt.Sprintf("no generation is starting: %v", err)
		}
		return ""
	})
}

// serving is the generation that serves.
func (v view) serving() control.Generation {
	for _, g := range v.status.Generations {
		if g.State == "serving" {
			return g
		}
	}
	return control.Generation{}
}
