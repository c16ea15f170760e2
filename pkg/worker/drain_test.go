package worker_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/worker"
)

const hour = time.Hour

var steps = []worker.Step{{Signal: syscall.SIGTERM}, {Wait: 50 * time.Millisecond}, {Signal: syscall.SIGKILL}}

var code = func(n int) sys.Exit { return sys.Exit{Known: true, Code: n} }
var killed = sys.Exit{Known: true, Signal: syscall.SIGKILL}

func TestDrain(t *testing.T) {
	for _, tt := range []struct {
		name, verbs string
		ups         int
		plan        worker.DrainPlan
		signalled   bool
		kill        bool // the worker, during the drain
		within      time.Duration
		want        worker.Outcome
		notes       string
	}{
		{name: "clean", verbs: "until", ups: 1,
			plan: worker.DrainPlan{Signal: syscall.SIGUSR1, Success: []worker.Status{{Code: 0}}}, within: hour,
			want: worker.Outcome{Exit: code(0), Clean: true}},
		{name: "by its signal", verbs: "sleep", ups: 1,
			plan: worker.DrainPlan{Signal: syscall.SIGTERM, Success: []worker.Status{{Code: 0}, {Code: 2}, {Signal: syscall.SIGTERM}}}, within: hour,
			want: worker.Outcome{Exit: sys.Exit{Known: true, Signal: syscall.SIGTERM}, Clean: true}},
		{name: "unwanted status", verbs: "until", ups: 1,
			plan: worker.DrainPlan{Signal: syscall.SIGUSR1, Success: []worker.Status{{Signal: syscall.SIGTERM}}}, within: hour,
			want: worker.Outcome{Exit: code(0)}},
		{name: "ignores the signal, obeys the escalation", verbs: "until", ups: 1,
			plan: worker.DrainPlan{Signal: syscall.SIGWINCH, Escalate: steps, Success: []worker.Status{{Code: 0}}},
			want: worker.Outcome{Exit: code(0), Escalated: syscall.SIGTERM}, notes: "sent SIGTERM to 1 process"},
		{name: "ignores everything", verbs: "ignore fork ignore fork ignore sleep", ups: 1,
			plan: worker.DrainPlan{Signal: syscall.SIGUSR1, Escalate: steps},
			want: worker.Outcome{Exit: killed, Escalated: syscall.SIGKILL}, notes: "sent SIGTERM to 3 processes\nsent SIGKILL to 3 processes"},
		{name: "leaves orphans", verbs: "forkexit ignore sleep", ups: 1,
			plan: worker.DrainPlan{Signal: syscall.SIGUSR1, Escalate: steps, Success: []worker.Status{{Code: 7}}},
			want: worker.Outcome{Exit: code(7), Escalated: syscall.SIGKILL}, notes: "sent SIGTERM to 1 process\nsent SIGKILL to 1 process"},
		{name: "daemonised", verbs: "daemonise ignore sleep", ups: 1,
			plan: worker.DrainPlan{Signal: syscall.SIGUSR1, Escalate: steps, Success: []worker.Status{{Code: 0}}},
			want: worker.Outcome{Exit: code(0), Escalated: syscall.SIGKILL}, notes: "sent SIGTERM to 1 process\nsent SIGKILL to 1 process"},
		{name: "dies", verbs: "until", ups: 1, kill: true, signalled: true,
			plan: worker.DrainPlan{Signal: syscall.SIGUSR1, Success: []worker.Status{{Code: 0}}}, within: hour,
			want: worker.Outcome{Exit: killed}},
		{name: "gone before", verbs: "exit=0",
			plan: worker.DrainPlan{Signal: syscall.SIGUSR1, Success: []worker.Status{{Code: 0}}}, within: hour,
			want: worker.Outcome{Exit: code(0), Clean: true}},
		{name: "told before", verbs: "until", ups: 1, signalled: true,
			plan: worker.DrainPlan{Signal: syscall.SIGUSR1, Escalate: []worker.Step{{Signal: syscall.SIGKILL}}},
			want: worker.Outcome{Exit: killed, Escalated: syscall.SIGKILL}, notes: "sent SIGKILL to 1 process"},
		{name: "cannot be ended", verbs: "ignore sleep", ups: 1,
			plan: worker.DrainPlan{Signal: syscall.SIGUSR1},
			want: worker.Outcome{Leftover: 1}},
		{name: "command", verbs: "until", ups: 1,
			plan: worker.DrainPlan{Command: []string{"/bin/sh", "-c", "kill -USR1 $WORKER"}, Success: []worker.Status{{Code: 0}}}, within: hour,
			want: worker.Outcome{Exit: code(0), Clean: true}},
		{name: "command fails", verbs: "until", ups: 1,
			plan: worker.DrainPlan{Command: []string{"/bin/sh", "-c", "echo no; exit 5"}, Escalate: steps}, within: 300 * time.Millisecond,
			want: worker.Outcome{Exit: code(0), Escalated: syscall.SIGTERM}, notes: "/bin/sh failed: exit code 5: no\nsent SIGTERM"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := start(t, tt.verbs)
			p.up(t, tt.ups)
			tt.plan.Env = []string{"WORKER=" + itoa(p.PID())}
			tt.plan.Deadline = time.Now().Add(tt.within)
			if strings.Contains(tt.verbs, "exit") || strings.HasPrefix(tt.verbs, "daemonise") {
				ended(t, p.Process)
			}
			if tt.kill {
				p.Signal(syscall.SIGKILL)
			}
			var notes notebook
			got := worker.Drain(t.Context(), p.Process, p.tree, tt.plan, tt.signalled, notes.add)
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(worker.Outcome{}, "Took")); diff != "" {
				t.Error(diff)
			}
			if tt.want.Leftover == 0 && !p.tree.Empty() {
				t.Error("the tree is not empty")
			}
			notes.check(t, tt.notes)
			worker.ReapOrphans()
		})
	}
}

// notebook collects notes.
type notebook struct {
	mu    sync.Mutex
	lines []string
}

func (n *notebook) add(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, s)
}

// check compares the notes with the lines of want, each of which names a part.
func (n *notebook) check(t *testing.T, want string) {
	t.Helper()
	var parts []string
	if want != "" {
		parts = strings.Split(want, "\n")
	}
	ok := len(parts) == len(n.lines)
	for i := 0; ok && i < len(parts); i++ {
		ok = strings.Contains(n.lines[i], parts[i])
	}
	if !ok {
		t.Errorf("notes %q, want %q", n.lines, parts)
	}
}

// A drain that is broken off, as by the end of the supervisor, is taken up again with the same deadline.
func TestDrainInterrupted(t *testing.T) {
	p := start(t, "until")
	p.up(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	plan := worker.DrainPlan{Signal: syscall.SIGWINCH, Deadline: time.Now().Add(hour), Escalate: steps, Success: []worker.Status{{Code: 0}}}
	told := 0
	plan.Told = func() { told++ }
	result := make(chan worker.Outcome, 1)
	go func() { result <- worker.Drain(ctx, p.Process, p.tree, plan, false, func(s string) { t.Error(s) }) }()
	cancel()
	out := <-result
	if !out.Interrupted || out.Leftover != 1 || out.Clean || out.Escalated != 0 {
		t.Errorf("%+v", out)
	}
	p.Signal(syscall.SIGUSR1)
	out = worker.Drain(t.Context(), p.Process, p.tree, plan, true, func(s string) { t.Error(s) })
	if !out.Clean || out.Interrupted || told != 1 {
		t.Errorf("%+v, told %d times", out, told)
	}
}

// What outlives the main process may finish its work until the deadline.
func TestDrainWaitsForOrphans(t *testing.T) {
	p := start(t, "forkexit until")
	orphan := p.up(t, 1)
	ended(t, p.Process)
	plan := worker.DrainPlan{Signal: syscall.SIGUSR1, Deadline: time.Now().Add(hour), Success: []worker.Status{{Code: 7}}}
	result := make(chan worker.Outcome, 1)
	go func() {
		result <- worker.Drain(t.Context(), p.Process, p.tree, plan, false, func(s string) { t.Error(s) })
	}()
	select {
	case out := <-result:
		t.Fatalf("the orphan was not waited for: %+v", out)
	case <-time.After(20 * time.Millisecond):
	}
	if err := syscall.Kill(orphan, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if out := <-result; !out.Clean {
		t.Errorf("%+v", out)
	}
}

// What a main process left behind can be drained by somebody who never saw that process.
func TestDrainAfterEnded(t *testing.T) {
	p := start(t, "forkexit ignore sleep")
	orphan := p.up(t, 1)
	ended(t, p.Process)
	main := worker.Ended(p.PID(), p.StartTime(), worker.Exit{})
	defer main.Release()
	if err := main.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	tree := worker.NewTree(main, "")
	if diff := cmp.Diff([]int{orphan}, eventuallyOne(t, tree)); diff != "" {
		t.Error(diff)
	}
	plan := worker.DrainPlan{Signal: syscall.SIGUSR1, Deadline: time.Now(), Escalate: steps}
	out := worker.Drain(context.Background(), main, tree, plan, true, func(string) {})
	want := worker.Outcome{Escalated: syscall.SIGKILL}
	if diff := cmp.Diff(want, out, cmpopts.IgnoreFields(worker.Outcome{}, "Took")); diff != "" {
		t.Error(diff)
	}
}
