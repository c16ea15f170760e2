package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/8265a91a/supervisor/internal/control"
)

var fdsCommand = command{
	name:    "fds",
	summary: "show the held sockets: address, backlog, identity, origin, who else has them",
	usage: `usage: supervisor fds NAME [--json] [--runtime-dir DIR]

Shows every socket that the service holds.

  NAME     its name in the service, and in systemd's FD store
  STATE    listening, bound (datagrams, or a stream socket that refuses connections)
  BACKLOG  connections that wait to be accepted, and how many may (TCP)
  COOKIE   the socket's identity, the same in every process; INODE is what ss -e and /proc show
  ORIGIN   unit (a .socket unit passed it), bound (from the configuration), fetched (from a worker), pushed (by a worker)
  STORED   whether systemd's FD store has it, so that it outlives the supervisor
  HOLDERS  the processes that have it open, with their generation

  --json   the same as a JSON document (version in "v")

exit codes: 0 done, 1 failed, 3 the service is not running
`,
	prepare: func(f *flags) func(*env, []string) error {
		var asJSON bool
		f.toggle("--json", &asJSON)
		return func(e *env, operands []string) error { return fds(e, operands, asJSON) }
	},
}

func fds(e *env, operands []string, asJSON bool) error {
	name, err := e.oneName(operands)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), control.Timeout)
	defer cancel()
	client, err := e.dial(ctx, name)
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.FDs(ctx)
	if err != nil {
		return fmt.Errorf("ask service %s for its sockets: %w", name, err)
	}
	if asJSON {
		return writeJSON(e.stdout, answer)
	}
	rows := [][]string{{"NAME", "KIND", "ADDRESS", "STATE", "BACKLOG", "COOKIE", "INODE", "ORIGIN", "STORED", "FLAGS", "HOLDERS"}}
	for _, s := range answer.Sockets {
		rows = append(rows, []string{s.Name, s.Network, s.Address, listenState(s.Listening), backlog(s.BacklogUsed, s.BacklogMax),
			number64(s.Cookie), number64(s.Inode), s.Origin, yesNo(s.Stored), heldFlags(s), holders(s.Holders)})
	}
	table(e.stdout, "", rows)
	return nil
}

func listenState(listening bool) string {
	if listening {
		return "listening"
	}
	return "bound"
}

func backlog(used, limit int) string {
	if limit == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d", used, limit)
}

func number64(n uint64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func heldFlags(s control.Held) string {
	flags := append([]string(nil), s.Flags...)
	if s.Nonblock {
		flags = append(flags, "nonblock")
	}
	return strings.Join(append(flags, names(s.Device, s.Namespace, s.Interface)...), ",")
}

// names shows what a socket is bound to, and the names that HAProxy keeps beside it.
func names(device, namespace, iface string) []string {
	var list []string
	if device != "" {
		list = append(list, "device="+device)
	}
	if namespace != "" {
		list = append(list, "namespace="+namespace)
	}
	if iface != "" {
		list = append(list, "interface="+iface)
	}
	return list
}

func holders(list []control.Holder) string {
	var parts []string
	for _, h := range list {
		part := fmt.Sprint(h.PID)
		if h.Comm != "" {
			part = h.Comm + "(" + part + ")"
		}
		if h.Generation != 0 {
			part += fmt.Sprintf("#%d", h.Generation)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, " ")
}
