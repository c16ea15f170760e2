package handoff_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/divert"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
)

// options are those of all held sockets, of each half one line.
func (h *host) options() (list []string) {
	h.t.Helper()
	for _, s := range h.held.Ordered(nil) {
		for _, fd := range []*sys.FD{s.FD, s.Alternate} {
			if fd == nil {
				continue
			}
			nonblock, err := sys.Nonblock(fd.Num())
			if err != nil {
				h.t.Fatal(err)
			}
			line := fmt.Sprintf("%s nonblock %v", s.Name, nonblock)
			if _, limit, err := divert.Queue(fd.Num()); err == nil {
				line += fmt.Sprint(" backlog ", limit)
			}
			if seconds, err := sys.DeferAccept(fd.Num()); err == nil && s.Info.Network == "tcp" {
				line += fmt.Sprint(" defer ", seconds)
			}
			if info, err := os.Lstat(s.Info.Address); err == nil {
				st := info.Sys().(*syscall.Stat_t)
				line += fmt.Sprintf(" mode %04o owner %d:%d", info.Mode().Perm(), st.Uid, st.Gid)
			}
			list = append(list, line)
		}
	}
	return list
}

func (h *host) checkOptions(what string, want ...string) {
	h.t.Helper()
	if diff := cmp.Diff(want, h.options()); diff != "" {
		h.t.Errorf("%s: %s", what, diff)
	}
}

// somaxconn is the kernel's own limit of a backlog, and what it takes for "as many as possible".
func somaxconn(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// The options of a socket that is held already follow the configuration: both halves of a pair, and the file of a Unix
// socket. A handoff that fails puts them back, and what a newcomer's listen() changes is repaired to what is asked for.
func TestOptionsOfHeldSockets(t *testing.T) {
	uid, gid, owner := os.Getuid(), os.Getgid(), ""
	if uid == 0 {
		uid, gid = 4321, 1234
	}
	owner = fmt.Sprintf("user = \"%d\"\ngroup = \"%d\"\n", uid, gid)
	most := somaxconn(t)
	h := newHost(t)
	tables := func(tcp, unix string) string {
		return "[drain]\ndivert = \"auto\"\n[[socket]]\nname = \"http\"\nlisten = \"ADDR:8080\"\n" + tcp +
			"[[socket]]\nname = \"path\"\nlisten = \"unix:DIR/path\"\nmode = \"0600\"\n" + unix
	}
	own := fmt.Sprintf("owner %d:%d", os.Getuid(), os.Getgid())
	// Whatever the worker asks for in its listen().
	h.configure("-accept=block -backlog=3", tables("", ""))
	h.must()
	first := []string{"http nonblock false backlog " + most + " defer 0", "http nonblock false backlog " + most + " defer 0", "path nonblock false backlog 3 mode 0600 " + own}
	h.checkOptions("bound", first...)

	changed := tables("backlog = 50\ndefer_accept = \"1s\"\nnonblock = false\n", "backlog = 60\n"+owner)
	changed = strings.Replace(changed, "0600", "0660", 1)
	h.configure("-exit=3", changed)
	if _, err := h.handoff(); err == nil {
		t.Fatal("it did not fail")
	}
	h.checkOptions("after a failure", first...)
	if s := h.held.Get("http"); fmt.Sprint(s.Backlog) != most || s.Options != (sockets.Options{}) {
		t.Errorf("after a failure: %+v", s.Meta)
	}
	h.configure("-accept=block -backlog=3", changed)
	h.must()
	h.checkOptions("changed", "http nonblock false backlog 50 defer 1", "http nonblock false backlog 50 defer 1",
		fmt.Sprintf("path nonblock false backlog 3 mode 0660 owner %d:%d", uid, gid))
	if len(h.notes) > 0 {
		t.Errorf("notes: %q", h.notes)
	}
	h.configure("-accept=block", strings.Replace(tables("", "backlog = 61\n"), "mode = \"0600\"\n", "", 1))
	h.must()
	h.checkOptions("unset", first[0], first[1], fmt.Sprintf("path nonblock false backlog 61 mode 0660 owner %d:%d", uid, gid))
	if len(h.notes) != 1 || !h.noted("what the configuration says of mode or owner has no effect: what is not configured any more stays as it is") {
		t.Errorf("notes: %q", h.notes)
	}
}

// A table without an address is for all sockets that a .socket unit lists under that name.
func TestOptionsOfUnit(t *testing.T) {
	h := newHost(t)
	h.listener(sockets.Unit, "web", 8080)
	h.listener(sockets.Unit, "web", 8081)
	most := somaxconn(t)
	web := "[drain]\ndivert = \"none\"\n[[socket]]\nname = \"web\"\nbacklog = 20\ndefer_accept = \"1s\"\nnonblock = true\n"
	h.configure("-accept=epoll", web)
	h.must()
	h.checkOptions("set", "web nonblock true backlog 20 defer 1", "web.2 nonblock true backlog 20 defer 1")
	h.configure("-accept=block", "[drain]\ndivert = \"none\"\n[[socket]]\nname = \"web\"\nnonblock = false\n")
	h.must()
	h.checkOptions("unset", "web nonblock false backlog 20 defer 1", "web.2 nonblock false backlog 20 defer 1")
	if !h.noted("of backlog has no effect: what is not") || !h.noted("of defer_accept has no effect: what is not") {
		t.Errorf("notes: %q", h.notes)
	}
	if most == "20" {
		t.Error("the kernel allows no more than 20")
	}
}

// What can be set only before a socket is bound is said, once in each reload.
func TestOptionsOfNewSockets(t *testing.T) {
	h := newHost(t)
	port := 20000 + os.Getpid()%10000
	table := fmt.Sprintf("[drain]\ndivert = \"none\"\n[[socket]]\nname = \"http\"\nlisten = \"[::1]:%d\"\n", port)
	h.configure("", table)
	h.must()
	h.configure("", "check = [\"/bin/true\"]\ncheck_with_sockets = true\n"+table+"v6only = false\nfree_bind = true\n")
	h.must()
	if len(h.notes) != 1 || !h.noted("of free_bind and v6only has no effect: only a new socket") {
		t.Errorf("notes: %q", h.notes)
	}
}
