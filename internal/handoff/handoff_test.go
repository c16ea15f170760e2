package handoff_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/worker"
)

const plain = "[drain]\ndivert = \"none\"\n[[socket]]\nname = \"http\"\nlisten = \"ADDR:8080\"\n"

// picture is everything that a failed handoff must leave as it was.
type picture struct {
	Held      map[string]uint64
	Files     []string
	Open      int
	Processes []int
}

func (h *host) picture() (p picture) {
	h.t.Helper()
	p.Held = map[string]uint64{}
	for _, s := range h.held.Ordered(nil) {
		p.Held[s.Name] = s.Cookie
	}
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range entries {
		p.Files = append(p.Files, e.Name())
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		h.t.Fatal(err)
	}
	p.Open = len(fds)
	if p.Processes, err = h.processes(); err != nil {
		h.t.Fatal(err)
	}
	return p
}

// Whatever step fails, everything is as it was before, and the old worker has noticed nothing.
func TestEveryFailureIsUndone(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	more := plain + "[[socket]]\nname = \"path\"\nlisten = \"unix:DIR/path\"\n[[socket]]\nname = \"udp\"\nlisten = \"udp:ADDR:8081\"\n"
	for _, c := range []struct {
		name, args, tables, fail string
		failing                  int
		step, words              string
	}{
		{name: "configuration", tables: "nonsense = 1\n", step: "check", words: "nonsense"},
		{name: "check", tables: more + "[worker.x]\n", step: "check", words: "x"},
		{name: "bind", tables: more + "[[socket]]\nname = \"taken\"\nlisten = \"" + taken.Addr().String() + "\"\n", step: "fetch", words: "address already in use"},
		{name: "owner", tables: more + "[[socket]]\nname = \"owned\"\nlisten = \"unix:DIR/owned\"\nuser = \"nobody-of-that-name\"\n", step: "fetch", words: "nobody-of-that-name"},
		{name: "no directory", tables: more + "[[socket]]\nname = \"deep\"\nlisten = \"unix:DIR/a/b\"\n", step: "fetch", words: "no such file"},
		{name: "store", tables: more, fail: "Sync", step: "store", words: "injected"},
		{name: "begin", tables: more, fail: "Begin", step: "spawn", words: "injected"},
		{name: "pidfd", tables: more, fail: "Spawned", step: "spawn", words: "injected"},
		{name: "exit", args: "-exit=7", tables: more, step: "ready", words: "exit code 7"},
		{name: "deaf", args: "-ignore-sockets", tables: more + "[ready]\ntimeout = \"200ms\"\n", step: "ready", words: `it does not listen on socket "http", which it was given`},
		{name: "silent", args: "-never-ready", tables: more + "[ready]\nwhen = [\"notify\"]\ntimeout = \"200ms\"\n", step: "ready", words: "it never sent READY=1"},
		{name: "leaves a child", args: "-child -never-ready", tables: more + "[ready]\nwhen = [\"notify\"]\ntimeout = \"200ms\"\n", step: "ready", words: "READY=1"},
		{name: "command", tables: more + "[ready]\nwhen = [\"command\"]\ntimeout = \"300ms\"\ncommand = [\"/bin/sh\", \"-c\", \"echo no luck; exit 1\"]\n", step: "ready", words: "no luck"},
		{name: "file", tables: more + "[ready]\nwhen = [\"file\"]\ntimeout = \"200ms\"\nfile = \"${dir}/ready\"\n", step: "ready", words: "no such file"},
		{name: "fetch from the new one", tables: more + "[handoff]\ngetsocks = \"DIR/admin.sock\"\n", step: "reconcile", words: "what it listens on"},
		{name: "switch", tables: more, fail: "Switch", step: "switch", words: "injected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			h.configure("", plain)
			h.must()
			pid := h.serving.PID()
			before := h.picture()
			h.configure(c.args, c.tables)
			h.fail, h.failing = c.fail, c.failing
			ho, err := h.handoff()
			if err == nil {
				t.Fatal("it did not fail")
			}
			f := err.(*handoff.Failure)
			if f.Step != c.step || !strings.Contains(f.Error(), c.words) || f.Holds == "" {
				t.Errorf("%+v", f)
			}
			if last := ho.Trace.Steps[len(ho.Trace.Steps)-1]; ho.Trace.OK || last.Name != c.step || last.Error == "" {
				t.Errorf("trace: %+v", ho.Trace)
			}
			if diff := cmp.Diff(before, h.picture()); diff != "" {
				t.Error(diff)
			}
			if h.serving.PID() != pid || h.serving.State != handoff.Serving {
				t.Errorf("the old generation: %+v", h.serving)
			}
			h.fail = ""
			h.configure("", plain)
			h.must()
		})
	}
}

// The mode of a socket is shared: a handoff that fails leaves it as the old worker needs it, whether the configuration
// changed it or the newcomer.
func TestModeIsPutBack(t *testing.T) {
	for _, c := range []struct {
		name, args, mode string
		was              bool
	}{
		{"by the configuration", "-exit=3", "nonblock = false\n", true},
		{"by the newcomer", "-never-ready", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			h.configure("-accept=block", plain)
			if c.was {
				h.configure("-accept=epoll", plain+"nonblock = true\n")
			}
			h.must()
			s := h.held.Get("http")
			asked := s.Nonblock
			h.configure(c.args, plain+c.mode+"[ready]\nwhen = [\"notify\", \"listening\"]\ntimeout = \"300ms\"\n")
			if _, err := h.handoff(); err == nil {
				t.Fatal("it did not fail")
			}
			if on, err := sys.Nonblock(s.FD.Num()); err != nil || on != c.was {
				t.Errorf("O_NONBLOCK is %v, was %v: %v", on, c.was, err)
			}
			if s.Nonblock != asked {
				t.Error("the failed configuration's mode is remembered")
			}
		})
	}
}

// A [[socket]] without an address means all sockets that a .socket unit passes under that name.
func TestModeOfAllOfAUnit(t *testing.T) {
	h := newHost(t)
	list := []*sockets.Socket{h.listener(sockets.Unit, "unit", 8081), h.listener(sockets.Unit, "unit", 8082)}
	h.configure("-accept=nonblock", "[[socket]]\nname = \"unit\"\nnonblock = true\n")
	h.must()
	for _, s := range list {
		if on, err := sys.Nonblock(s.FD.Num()); err != nil || !on {
			t.Errorf("O_NONBLOCK of %s is %v: %v", s.Name, on, err)
		}
	}
}

func steps(ho *handoff.Handoff) (names []string) {
	for _, s := range ho.Trace.Steps {
		names = append(names, s.Name)
	}
	return names
}

func TestOrders(t *testing.T) {
	h := newHost(t)
	lock := "-lock=" + h.dir + "/lock"
	h.configure(lock, plain+"[handoff]\norder = \"signal-first\"\n")
	h.must()
	ho := h.must()
	if diff := cmp.Diff([]string{"check", "fetch", "store", "signal", "spawn", "ready", "reconcile", "switch"}, steps(ho)); diff != "" {
		t.Error(diff)
	}
	if ho.New.Slot == ho.Old.Slot {
		t.Errorf("slot %d again: what arrived while the old one stopped waits at the other", ho.New.Slot)
	}
	// If the new one fails then, nobody serves, and the error says so.
	h.configure("-exit=1", plain+"[handoff]\norder = \"signal-first\"\n")
	cookies := h.picture().Held
	_, err := h.handoff()
	f, _ := err.(*handoff.Failure)
	if f == nil || !strings.Contains(f.Error(), "no worker serves, the sockets stay held") {
		t.Errorf("%+v", f)
	}
	if diff := cmp.Diff(cookies, h.picture().Held); diff != "" {
		t.Error(diff)
	}
	h.configure("", plain)
	h.must()
	ho = h.must()
	if diff := cmp.Diff([]string{"check", "fetch", "store", "spawn", "ready", "reconcile", "switch"}, steps(ho)); diff != "" {
		t.Error(diff)
	}
}

// A worker that asks for more time gets it.
func TestExtendedDeadline(t *testing.T) {
	h := newHost(t)
	h.configure("-start-delay=700ms", plain+"[ready]\nwhen = [\"notify\"]\ntimeout = \"300ms\"\n")
	over := make(chan struct{})
	defer close(over)
	go func() {
		for {
			// Until there is the socket, and a deadline to be moved, nobody listens.
			sys.SendTo(filepath.Join(h.dir, "notify-1"), []byte("EXTEND_TIMEOUT_USEC=5000000"), nil)
			select {
			case <-over:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	h.must()
}

// What the worker's listen() and shutdown() do to a shared socket is repaired.
func TestRepair(t *testing.T) {
	h := newHost(t)
	h.configure("-backlog=3", strings.Replace(plain, "ADDR:8080\"", "ADDR:8080\"\nbacklog = 100", 1))
	h.must()
	s := h.held.Get("http")
	if _, backlog, err := sys.Backlog(s.FD.Num()); err != nil || backlog != 100 {
		t.Errorf("backlog %d, %v", backlog, err)
	}
	if err := syscall.Shutdown(s.FD.Num(), syscall.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", h.addr+":8080"); err == nil {
		t.Fatal("the socket still listens")
	}
	if note := handoff.Heal(s); !strings.Contains(note, "listens again") {
		t.Errorf("note: %q", note)
	}
	if note := handoff.Heal(s); note != "" {
		t.Errorf("healed twice: %q", note)
	}
	conn, err := net.Dial("tcp", h.addr+":8080")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// held adds a listener of the given origin.
func (h *host) listener(origin sockets.Origin, name string, port int) *sockets.Socket {
	h.t.Helper()
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: h.addr, Port: uint32(port)})
	if err != nil {
		h.t.Fatal(err)
	}
	s, err := sockets.New(fd, origin, name)
	if err != nil {
		h.t.Fatal(err)
	}
	s, _ = h.held.Add(s)
	return s
}

// Sockets that the newcomer does not use: a fetched one goes, a unit's is noted, one that was never offered stays out.
func TestUnclaimed(t *testing.T) {
	h := newHost(t)
	h.configure("-ignore-sockets", plain+"[ready]\nwhen = [\"notify\"]\n[handoff]\nfetch = \"none\"\n")
	h.must() // it keeps the descriptors open: that is a claim
	if h.held.Get("http").Unclaimed {
		t.Error("a socket that the worker holds is unclaimed")
	}
	// A worker that asks for its sockets, and does not, holds none.
	text := "[worker]\nsockets = [\"getsocks\"]\ncommand = [\"/bin/sleep\", \"1000\"]\n[ready]\nwhen = [\"delay\"]\ndelay = \"1ms\"\n[[socket]]\nname = \"http\"\nlisten = \"" + h.addr + ":8080\"\n"
	if err := os.WriteFile(h.configFile(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.listener(sockets.Unit, "unit", 8081)
	h.listener(sockets.Fetched, "", 8082)
	h.must()
	if s := h.held.Get("unit"); s == nil || !s.Unclaimed || !h.noted("does not use socket unit") {
		t.Errorf("the unit's socket: %+v, %q", s, h.notes)
	}
	if s := h.held.Get("http"); s == nil || !s.Unclaimed || !h.noted("does not use socket http") {
		t.Errorf("the configured socket: %+v", s)
	}
	if h.held.Len() != 2 {
		t.Errorf("%d sockets are held: the fetched one must go", h.held.Len())
	}
	notes := len(h.notes)
	h.must()
	if len(h.notes) != notes {
		t.Errorf("it is said again: %q", h.notes[notes:])
	}
	h.configure("", plain)
	h.must()
	if s := h.held.Get("http"); s.Unclaimed {
		t.Error("it stays unclaimed after it was claimed")
	}
}

// A socket that the configuration does not name any more, or with another address, is closed, and its file removed.
func TestUnconfigured(t *testing.T) {
	h := newHost(t)
	h.configure("", plain+"[[socket]]\nname = \"path\"\nlisten = \"unix:DIR/path\"\n")
	h.must()
	first := h.held.Get("http").Cookie
	h.configure("", strings.Replace(plain, ":8080", ":8081", 1))
	h.must()
	if h.held.Len() != 1 || h.held.ByCookie(first) != nil {
		t.Errorf("held: %+v", h.picture().Held)
	}
	if _, err := os.Lstat(h.dir + "/path"); err == nil {
		t.Error("the file of the closed socket is left")
	}
	for port, want := range map[string]bool{":8080": false, ":8081": true} {
		conn, err := net.Dial("tcp", h.addr+port)
		if (err == nil) != want {
			t.Errorf("port %s: %v", port, err)
		}
		if err == nil {
			conn.Close()
		}
	}
	if len(h.notes) > 0 {
		t.Errorf("noted what was asked for: %q", h.notes)
	}
}

// A worker that binds the path by itself, which the configuration does not name any more, keeps its file.
func TestUnconfiguredButBoundByWorker(t *testing.T) {
	h := newHost(t)
	h.configure("", plain+"[[socket]]\nname = \"path\"\nlisten = \"unix:DIR/path\"\n")
	h.must()
	h.configure("-bind=unix:"+h.dir+"/path", plain)
	h.must()
	if h.held.Get("path") != nil {
		t.Error("the socket is still held")
	}
	conn, err := net.Dial("unix", h.dir+"/path")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// The owner of a socket's file may be given by number.
func TestOwnerByNumber(t *testing.T) {
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 4321, 1234
	}
	h := newHost(t)
	h.configure("", plain+fmt.Sprintf("[[socket]]\nname = \"path\"\nlisten = \"unix:DIR/path\"\nuser = \"%d\"\ngroup = \"%d\"\n", uid, gid))
	h.must()
	info, err := os.Lstat(h.dir + "/path")
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != uid || int(st.Gid) != gid {
		t.Errorf("the owner is %d:%d, not %d:%d", st.Uid, st.Gid, uid, gid)
	}
}

// Two generations share no signal: EndTree ends one with all its children and leaves the other.
func TestEndTree(t *testing.T) {
	h := newHost(t)
	h.configure("-child -ignore-term", plain)
	h.must()
	old := h.serving
	ho, err := h.handoff()
	if err != nil {
		t.Fatal(err)
	}
	if pids, _ := h.processes(); len(pids) != 4 {
		t.Fatalf("processes: %v", pids)
	}
	handoff.EndTree(old, limit)
	if !old.Tree.Empty() {
		t.Error("something of the old generation lives")
	}
	if pids, _ := ho.New.Tree.PIDs(); len(pids) != 2 {
		t.Errorf("the new generation: %v", pids)
	}
	h.Discard(old, worker.ExitString(old.Process.Exit()))
}

// A path may name a socket: of the new configuration, where the old one has another of that name.
func TestPathsNameSockets(t *testing.T) {
	h := newHost(t)
	for _, port := range []string{"8080", "8081"} {
		text := "[worker]\ncommand = [\"/bin/sh\", \"-c\", \"> $1; exec sleep 1000\", \"sh\", \"${dir}/port-${port:http}\"]\n" +
			"[ready]\nwhen = [\"file\"]\nfile = \"${dir}/port-" + port + "\"\n[[socket]]\nname = \"http\"\nlisten = \"" + h.addr + ":" + port + "\"\n"
		for _, file := range []string{"${dir}/port-" + port, "${dir}/port-${port:http}"} {
			if err := os.WriteFile(h.configFile(), []byte(strings.Replace(text, "${dir}/port-"+port, file, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			h.must()
		}
	}
}

// The command that waits for readiness is told which process it is about.
func TestReadyCommandKnowsThePID(t *testing.T) {
	h := newHost(t)
	h.configure("", plain+"[ready]\nwhen = [\"command\"]\ntimeout = \"30s\"\ncommand = [\"/bin/sh\", \"-c\", \"echo ${pid} $WORKER_PID > DIR/pid\"]\n")
	h.must()
	said, err := os.ReadFile(filepath.Join(h.dir, "pid"))
	if want := fmt.Sprintf("%d %[1]d\n", h.serving.PID()); err != nil || string(said) != want {
		t.Errorf("it was given %q, want %q (%v)", said, want, err)
	}
}
