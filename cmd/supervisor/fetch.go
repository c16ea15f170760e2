package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/getsocks"
)

var fetchCommand = command{
	name:    "fetch",
	summary: "show what a HAProxy (or a supervisor) listens on, by the _getsocks protocol",
	usage: `usage: supervisor fetch SOCKET [--json]

Asks the HAProxy whose stats socket is SOCKET for its listening sockets, as its successor would, and shows them. It
changes nothing. The stats socket needs "expose-fd listeners" in HAProxy's configuration. DIR/NAME/getsocks.sock of a
running service answers too.

  --json   the same as a JSON document (version in "v")

exit codes: 0 done, 1 failed

example:
  supervisor fetch /run/haproxy/admin.sock
`,
	prepare: func(f *flags) func(*env, []string) error {
		var asJSON bool
		f.toggle("--json", &asJSON)
		return func(e *env, operands []string) error { return fetch(e, operands, asJSON) }
	},
}

// fetched is what `supervisor fetch --json` prints.
type fetched struct {
	V       int             `json:"v"`
	Socket  string          `json:"socket"`
	Sockets []fetchedSocket `json:"sockets"`
}

type fetchedSocket struct {
	Network string `json:"network"`
	// Address is without the temporary name under which HAProxy binds unix sockets.
	Address     string   `json:"address"`
	Listening   bool     `json:"listening"`
	BacklogUsed int      `json:"backlog_used"`
	BacklogMax  int      `json:"backlog_max"`
	Cookie      uint64   `json:"cookie"`
	Inode       uint64   `json:"inode"`
	Flags       []string `json:"flags,omitempty"`
	Device      string   `json:"device,omitempty"`
	Namespace   string   `json:"namespace,omitempty"`
	Interface   string   `json:"interface,omitempty"`
}

func fetch(e *env, operands []string, asJSON bool) error {
	if len(operands) != 1 {
		return usageError{fmt.Sprintf("fetch takes one socket, not %d arguments", len(operands)), "supervisor fetch /run/haproxy/admin.sock"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), control.Timeout)
	defer cancel()
	list, err := getsocks.Fetch(ctx, operands[0])
	if errors.Is(err, getsocks.ErrNothing) {
		return hinted{err, `write "stats socket ` + operands[0] + ` level admin expose-fd listeners" into the global section of haproxy.cfg`}
	}
	if err != nil {
		return hinted{err, unreachable(err)}
	}
	defer getsocks.CloseAll(list)
	answer := fetched{V: control.Version, Socket: operands[0], Sockets: []fetchedSocket{}}
	for _, s := range list {
		described, err := describe(s)
		if err != nil {
			return err
		}
		answer.Sockets = append(answer.Sockets, described)
	}
	if asJSON {
		return writeJSON(e.stdout, answer)
	}
	rows := [][]string{{"KIND", "ADDRESS", "STATE", "BACKLOG", "COOKIE", "INODE", "FLAGS"}}
	for _, s := range answer.Sockets {
		flags := append(append([]string(nil), s.Flags...), names(s.Device, s.Namespace, s.Interface)...)
		rows = append(rows, []string{s.Network, s.Address, listenState(s.Listening), backlog(s.BacklogUsed, s.BacklogMax),
			number64(s.Cookie), number64(s.Inode), strings.Join(flags, ",")})
	}
	table(e.stdout, "", rows)
	return nil
}

// unreachable is the hint for a socket that nobody answers on.
func unreachable(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return `the path is that of "stats socket" in the global section of haproxy.cfg, and is there while HAProxy runs`
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the file is left from a process that has ended, or is no socket: does HAProxy run?"
	case errors.Is(err, fs.ErrPermission):
		return "try it as root"
	}
	return ""
}

func describe(s getsocks.Socket) (fetchedSocket, error) {
	info, err := sys.Inspect(s.FD.Num())
	if err != nil {
		return fetchedSocket{}, err
	}
	d := fetchedSocket{Network: info.Network, Address: info.Address, Listening: info.Listening, Cookie: info.Cookie, Inode: info.Inode,
		Device: info.Device, Namespace: s.Namespace, Interface: s.Interface}
	if strings.HasPrefix(info.Network, "unix") {
		d.Address = getsocks.TrimTemp(info.Address)
	}
	if info.Network == "tcp" && info.Listening {
		if used, limit, err := sys.Backlog(s.FD.Num()); err == nil {
			d.BacklogUsed, d.BacklogMax = used, limit
		}
	}
	for _, f := range []struct {
		set  bool
		name string
	}{{info.ReusePort, "reuseport"}, {info.V6Only, "v6only"}, {info.FreeBind, "freebind"}, {info.Nonblock, "nonblock"}} {
		if f.set {
			d.Flags = append(d.Flags, f.name)
		}
	}
	return d, nil
}
