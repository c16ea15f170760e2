package worker_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/worker"
)

func pids(t *testing.T, tree *worker.Tree) []int {
	t.Helper()
	got, err := tree.PIDs()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestTreeFollowsForks(t *testing.T) {
	p := start(t, "fork fork until")
	leaf := p.up(t, 1)
	got := pids(t, p.tree)
	if len(got) != 3 || !slices.Contains(got, p.PID()) || !slices.Contains(got, leaf) {
		t.Errorf("members %v, want 3 with %d and %d", got, p.PID(), leaf)
	}
	for _, pid := range got {
		if !p.tree.Contains(pid) {
			t.Errorf("%d is not contained", pid)
		}
	}
	for _, pid := range []int{os.Getpid(), os.Getppid(), 1, 0, -1} {
		if p.tree.Contains(pid) {
			t.Errorf("%d is contained", pid)
		}
	}
}

// An orphan is found by its session, or, when it made itself one of its own, by the marker in its environment.
func TestTreeFindsOrphans(t *testing.T) {
	for _, verbs := range []string{"forkexit until", "daemonise until", "daemonise forkexit until", "daemonise daemonise ignore sleep"} {
		t.Run(verbs, func(t *testing.T) {
			p := start(t, verbs)
			orphan := p.up(t, 1)
			ended(t, p.Process)
			if diff := cmp.Diff([]int{orphan}, eventuallyOne(t, p.tree)); diff != "" {
				t.Error(diff)
			}
			if !p.tree.Contains(orphan) {
				t.Error("the orphan is not contained")
			}
			marker := &worker.Tree{Marker: "SUPERVISOR_GENERATION=" + t.Name() + "/"}
			if diff := cmp.Diff([]int{orphan}, pids(t, marker)); diff != "" {
				t.Error("by the marker alone: ", diff)
			}
			n, err := p.tree.Signal(syscall.SIGKILL)
			if n != 1 || err != nil {
				t.Errorf("signalled %d: %v", n, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			if err := p.tree.Wait(ctx); err != nil || !p.tree.Empty() {
				t.Errorf("not empty: %v", err)
			}
		})
	}
}

// eventuallyOne waits until those that made way for the last process are gone.
func eventuallyOne(t *testing.T, tree *worker.Tree) []int {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		if got := pids(t, tree); len(got) <= 1 || time.Now().After(deadline) {
			return got
		}
	}
}

// A process that is seen once stays a member even when it loses all that told it.
func TestTreeRemembers(t *testing.T) {
	p := start(t, "fork fork sleep")
	leaf := p.up(t, 1)
	all := pids(t, p.tree)
	fresh := worker.NewTree(p.Process, "NO=marker")
	if diff := cmp.Diff(all, pids(t, fresh)); diff != "" {
		t.Error(diff)
	}
	p.Signal(syscall.SIGKILL)
	ended(t, p.Process)
	if got := pids(t, fresh); len(got) != 2 || !slices.Contains(got, leaf) {
		t.Errorf("after the main process: %v of %v", got, all)
	}
	if diff := cmp.Diff(all, fresh.Seen()); diff != "" {
		t.Errorf("seen: %s", diff)
	}
}

func TestTreeIsNobodyElses(t *testing.T) {
	a, b := start(t, "until"), start(t, "fork until")
	a.up(t, 1)
	b.up(t, 1)
	if diff := cmp.Diff([]int{a.PID()}, pids(t, worker.NewTree(a.Process, "NO=marker"))); diff != "" {
		t.Error(diff)
	}
	other := &worker.Tree{Marker: "SUPERVISOR_GENERATION=" + t.Name() + "/11"}
	if got := pids(t, other); len(got) != 0 {
		t.Errorf("generation 11 has the processes %v of generation 1", got)
	}
	if got := pids(t, &worker.Tree{}); len(got) != 0 {
		t.Errorf("the zero tree has the processes %v", got)
	}
}

// The number of a session may be given to a stranger once the session is over.
func TestTreeOfReusedSession(t *testing.T) {
	dead, stranger := start(t, "exit=0"), start(t, "fork sleep")
	ended(t, dead.Process)
	for stranger.StartTime() == dead.StartTime() { // within one tick of the clock no pid is given out twice
		stranger = start(t, "fork sleep")
	}
	stranger.up(t, 1)
	reused := worker.NewTree(dead.Process, "NO=marker")
	reused.Session = stranger.PID()
	if got := pids(t, reused); len(got) != 0 {
		t.Errorf("strangers %v are members", got)
	}
	if n, err := reused.Signal(syscall.SIGKILL); n != 0 || err != nil {
		t.Errorf("signalled %d strangers: %v", n, err)
	}
	if reused.Contains(stranger.PID()) {
		t.Error("the stranger is contained")
	}
}

func TestTreeWaitEndsWithContext(t *testing.T) {
	p := start(t, "sleep")
	p.up(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- p.tree.Wait(ctx) }()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Zombies that somebody else must reap are no members: they cannot be ended any more.
func TestTreeIgnoresZombies(t *testing.T) {
	p := start(t, "fork exit=0")
	for deadline := time.Now().Add(limit); len(pids(t, p.tree)) != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the zombie stays a member")
		}
	}
}

func TestReapOrphans(t *testing.T) {
	p := start(t, "daemonise until")
	orphan := p.up(t, 1)
	if got := ended(t, p.Process); !got.Known || got.Code != 0 {
		t.Errorf("the main process: %s", worker.ExitString(got))
	}
	if n := worker.ReapOrphans(); n != 0 {
		t.Errorf("reaped %d living processes", n)
	}
	p.tree.Signal(syscall.SIGKILL)
	for deadline := time.Now().Add(limit); worker.ReapOrphans() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the orphan is not reaped")
		}
	}
	if _, err := os.Stat("/proc/" + itoa(orphan)); !os.IsNotExist(err) {
		t.Errorf("the orphan is still there: %v", err)
	}
}

// However often orphans are reaped, a watched child's status goes to its watcher.
func TestReapOrphansStealsNothing(t *testing.T) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				worker.ReapOrphans()
			}
		}
	}()
	for i := range 30 {
		p, err := worker.Start(command("exit="+itoa(i), "A=b"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(sys.Exit{Known: true, Code: i}, ended(t, p)); diff != "" {
			t.Error(diff)
		}
		p.Release()
	}
	close(stop)
	<-stopped
}

func BenchmarkTreePIDs(b *testing.B) {
	p, err := worker.Start(command("sleep", "A=b"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { p.Signal(syscall.SIGKILL); <-p.Done(); p.Release() }()
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			worker.NewTree(p, "A=b").PIDs()
		}
	})
	b.Run("again", func(b *testing.B) {
		tree := worker.NewTree(p, "A=b")
		for b.Loop() {
			tree.PIDs()
		}
	})
}
