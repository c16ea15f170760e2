package handoff_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/worker"
)

const limit = 30 * time.Second

var hosts atomic.Int32

// host is the daemon in memory: it keeps what a handoff tells it, and fails where it is told to.
type host struct {
	t    *testing.T
	name string
	dir  string
	addr string

	mu      sync.Mutex
	held    *sockets.Set
	gens    []*handoff.Generation
	serving *handoff.Generation
	slot    int
	// fail is the method that fails, and failing how often it still succeeds before.
	fail    string
	failing int

	noteMu sync.Mutex
	notes  []string
}

var _ handoff.Host = (*host)(nil)

var errInjected = errors.New("injected failure")

func newHost(t *testing.T) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "hand")
	if err != nil {
		t.Fatal(err)
	}
	n := int(hosts.Add(1))
	h := &host{
		t: t, name: fmt.Sprintf("h%d-%d", os.Getpid(), n), dir: dir, held: sockets.NewSet(),
		addr: fmt.Sprintf("127.%d.%d.%d", 192+os.Getpid()/256%60, os.Getpid()%256, n%255),
	}
	t.Cleanup(func() {
		for _, g := range h.gens {
			if g.State != handoff.Gone {
				handoff.EndTree(g, limit)
				h.Discard(g, "the test is over")
			}
		}
		h.held.Close()
		os.RemoveAll(dir)
	})
	return h
}

func (h *host) configFile() string { return filepath.Join(h.dir, h.name+".toml") }

// configure writes a configuration: a worker with these arguments, and further tables, in which ADDR stands for the
// host's own address and DIR for its directory.
func (h *host) configure(args, tables string) {
	h.t.Helper()
	text := fmt.Sprintf("[worker]\ncommand = [%q, \"-generation\", \"${generation}\"", workerProgram)
	for a := range strings.FieldsSeq(args) {
		text += fmt.Sprintf(", %q", a)
	}
	text += "]\n" + strings.NewReplacer("ADDR", h.addr, "DIR", h.dir).Replace(tables)
	if err := os.WriteFile(h.configFile(), []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// handoff performs one, of the kind that fits, from the serving generation.
func (h *host) handoff() (*handoff.Handoff, error) {
	h.t.Helper()
	ho := &handoff.Handoff{Host: h, Kind: handoff.Reload, Old: h.serving}
	var err error
	if ho.Config, err = h.LoadConfig(); err != nil && h.serving == nil {
		h.t.Fatal(err)
	}
	err = ho.Run(context.Background())
	var f *handoff.Failure
	if err != nil && !errors.As(err, &f) {
		h.t.Errorf("%v is no *Failure", err)
	}
	return ho, err
}

// must performs a handoff that succeeds, and ends the old generation.
func (h *host) must() *handoff.Handoff {
	h.t.Helper()
	old := h.serving
	ho, err := h.handoff()
	if err != nil {
		h.t.Fatal(err)
	}
	if old != nil && old.State != handoff.Gone {
		handoff.EndTree(old, limit)
		h.Discard(old, "replaced")
	}
	return ho
}

func (h *host) Do(f func(*sockets.Set)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h.held)
}

// inject fails the method if that is wanted.
func (h *host) inject(method string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != method {
		return nil
	}
	if h.failing--; h.failing >= 0 {
		return nil
	}
	h.fail = ""
	return errInjected
}

func (h *host) LoadConfig() (*config.Config, error)  { return config.Load(h.configFile()) }
func (h *host) Sync(context.Context) error           { return h.inject("Sync") }
func (h *host) LastSlot() int                        { return h.slot }
func (h *host) Vacate(context.Context, int)          {}
func (h *host) LastWords(*handoff.Generation) string { return "last words" }
func (h *host) Pushed() []handoff.Extra              { return nil }
func (h *host) Marker(n int) string                  { return handoff.MarkerOf(h.name, "test", n) }

func (h *host) Paths() (name, runtime, getsocks string) { return h.name, h.dir, h.dir + "/getsocks" }
func (h *host) Spawned(*handoff.Generation) error       { return h.inject("Spawned") }

// Note may be called from anywhere, inside Do too.
func (h *host) Note(_ handoff.Level, text string) {
	h.noteMu.Lock()
	defer h.noteMu.Unlock()
	h.notes = append(h.notes, text)
}

// noted tells whether some note holds the words.
func (h *host) noted(words string) bool {
	h.noteMu.Lock()
	defer h.noteMu.Unlock()
	return slices.ContainsFunc(h.notes, func(n string) bool { return strings.Contains(n, words) })
}

// processes are all workers of this host.
func (h *host) processes() ([]int, error) {
	tree := worker.Tree{Marker: handoff.Marker(h.name, "test")}
	return tree.PIDs()
}

func (h *host) Begin(cfg *config.Config, slot int) (*handoff.Generation, error) {
	if err := h.inject("Begin"); err != nil {
		return nil, err
	}
	g := handoff.NewGeneration(len(h.gens)+1, slot, cfg)
	g.Dir = filepath.Join(h.dir, fmt.Sprint("generation-", g.N))
	if err := os.Mkdir(g.Dir, 0o755); err != nil {
		return nil, err
	}
	notify, err := worker.ListenNotify(filepath.Join(h.dir, fmt.Sprint("notify-", g.N)))
	if err != nil {
		return nil, err
	}
	g.Notify = notify
	h.gens = append(h.gens, g)
	go notify.Run(func(int, uint32) bool { return true }, func(m worker.Message) {
		h.Do(func(*sockets.Set) {
			if m.Ready {
				g.SetReady()
			}
			if m.ExtendTimeout > 0 {
				g.Extend(m.ExtendTimeout)
			}
		})
		sys.CloseAll(m.FDs)
	})
	return g, nil
}

func (h *host) Discard(g *handoff.Generation, outcome string) {
	g.State, g.Outcome = handoff.Gone, outcome
	g.Notify.Close()
	g.Intercept.Close()
	g.CloseLeaving()
	if g.Process != nil {
		g.Process.Release()
	}
	os.RemoveAll(g.Dir)
}

func (h *host) Switch(old, next *handoff.Generation, drop func(*sockets.Set)) error {
	if err := h.inject("Switch"); err != nil {
		return err
	}
	if old != nil && old.State == handoff.Serving {
		old.State = handoff.Draining
	}
	next.State, h.serving, h.slot = handoff.Serving, next, next.Slot
	h.Do(drop)
	return nil
}

func (h *host) StopOld(_ context.Context, old *handoff.Generation) error {
	if old != nil {
		handoff.EndTree(old, limit)
		h.Discard(old, "stopped")
		h.serving = nil
	}
	return h.inject("StopOld")
}
