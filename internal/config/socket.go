package config

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// maxSocketName leaves room for a prefix in the 255 bytes that systemd allows a descriptor's name.
const maxSocketName = 200

// sockets reads the [[socket]] tables.
func (d *decoder) sockets(root *table) []Socket {
	v, ok := root.get("socket")
	if !ok {
		return nil
	}
	items, err := asList(v)
	if err != nil {
		root.fail("socket", bad("write [[socket]]", "must be an array of tables, not %s", kind(v)))
		return nil
	}
	var list []Socket
	names, addresses := map[string]int{}, map[Address]int{}
	for i, item := range items {
		path := element(child("", "socket"), i)
		values, ok := item.(map[string]any)
		if !ok {
			d.report(path, "socket", bad("write [[socket]]", "must be a table, not %s", kind(item)))
			continue
		}
		t := d.table("socket", path, values)
		s := t.socket()
		t.unique(names, addresses, &s)
		list = append(list, s)
	}
	return list
}

// unique reports a name or an address that an earlier table has.
func (t *table) unique(names map[string]int, addresses map[Address]int, s *Socket) {
	address := s.Listen
	if strings.HasPrefix(address.Path, "/") {
		// A path is one file, whatever the type of its socket.
		address.Network = "unix"
	}
	if line, ok := names[s.Name]; ok && s.Name != "" {
		t.fail("name", bad(fmt.Sprintf("the other is in line %d", line), "%q is the name of two sockets", s.Name))
	} else {
		names[s.Name] = s.Line
	}
	if line, ok := addresses[address]; ok && !address.IsZero() {
		t.fail("listen", bad(fmt.Sprintf("the other is in line %d", line), "%q is the address of two sockets", s.Listen))
	} else {
		addresses[address] = s.Line
	}
}

func (t *table) socket() Socket {
	var s Socket
	s.Line, _ = t.d.lines.at(t.d.places[t.path].key)
	t.text("name", &s.Name, checkSocketName)
	if !t.has("name") {
		t.fail("name", bad(`name = "http"`, "is missing"))
	}
	var listen string
	t.text("listen", &listen, func(text string) (err error) {
		if strings.Contains(text, "${") {
			return bad("", "%q: there are no placeholders in listen", text)
		}
		s.Listen, err = ParseAddress(text)
		return err
	})
	t.optionalBoolean("nonblock", &s.Nonblock)
	t.integer("backlog", &s.Backlog, 0, math.MaxInt32)
	t.duration("defer_accept", &s.DeferAccept, 0)
	if s.DeferAccept%time.Second != 0 {
		t.fail("defer_accept", bad("", "%v is not in whole seconds, as the kernel counts", s.DeferAccept))
	}
	t.optionalBoolean("v6only", &s.V6Only)
	t.boolean("free_bind", &s.FreeBind)
	t.mode(&s.Mode)
	t.text("user", &s.User, checkOwner)
	t.text("group", &s.Group, checkOwner)
	t.fitting(&s)
	if len(t.values) == 1 && t.has("name") {
		t.fail("name", bad(`listen = "127.0.0.1:8080"`, "says nothing about %q: neither an address nor an option", s.Name))
	}
	return s
}

// fitting reports the options that the socket's kind does not have.
func (t *table) fitting(s *Socket) {
	if t.has("listen") && s.Listen.IsZero() {
		return
	}
	a := s.Listen
	ip, bound := a.Network == "tcp" || a.Network == "udp", !a.IsZero()
	file := strings.HasPrefix(a.Path, "/")
	rules := []struct {
		key    string
		fits   bool
		reason string
	}{
		{"mode", file, "only a Unix socket that is bound here to a path has it"},
		{"user", file, "only a Unix socket that is bound here to a path has it"},
		{"group", file, "only a Unix socket that is bound here to a path has it"},
		{"free_bind", ip, "only a TCP or UDP socket that is bound here has it"},
		{"v6only", ip && isIPv6(a.Host), "only an IPv6 socket that is bound here has it"},
		{"defer_accept", !bound || a.Network == "tcp", "only a TCP socket has it"},
		{"backlog", !bound || (a.Network != "udp" && a.Network != "unixgram"), "a datagram socket has none"},
	}
	for _, r := range rules {
		if t.has(r.key) && !r.fits {
			t.fail(r.key, bad(r.reason, "does not fit %s", describe(s)))
		}
	}
}

func describe(s *Socket) string {
	if s.Listen.IsZero() {
		return "a socket without listen, which comes from a .socket unit"
	}
	return strconv.Quote(s.Listen.String())
}

func isIPv6(host string) bool {
	if host == "" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Is6()
}

// mode reads file permissions: "0660" or 0o660.
func (t *table) mode(dst **uint32) {
	v, ok := t.get("mode")
	if !ok {
		return
	}
	var n uint64
	var err error
	switch v := v.(type) {
	case string:
		if n, err = strconv.ParseUint(v, 8, 32); err != nil {
			err = bad(`write "0660"`, "%q is not octal", v)
		}
	case int64:
		n = uint64(v)
		if !strings.HasPrefix(t.d.source(child(t.path, "mode")), "0o") {
			err = bad(`write "0660" or 0o660`, "%d is not octal", v)
		}
	default:
		err = bad(`write "0660"`, "must be a string, not %s", kind(v))
	}
	if err == nil && n > 0o777 {
		err = bad("0000 to 0777", "%#o has more than permission bits", n)
	}
	if err != nil {
		t.fail("mode", err)
		return
	}
	mode := uint32(n)
	*dst = &mode
}

func checkOwner(s string) error {
	if strings.ContainsAny(s, ":/ \t\r\n") {
		return bad("", "%q is no name of a user or group", s)
	}
	return nil
}

// checkSocketName checks the name of a [[socket]]: it is stored by systemd under a prefix, as a descriptor's name.
func checkSocketName(s string) error {
	if strings.HasPrefix(s, "supervisor.") {
		return bad("", `%q begins with "supervisor.", which is for the supervisor's own entries`, s)
	}
	return checkDescriptorName(s)
}

// checkDescriptorName checks what LISTEN_FDNAMES can carry: printable ASCII without ":" (sd_listen_fds(3)),
// and no backslash, which unit files read as an escape.
func checkDescriptorName(s string) error {
	if len(s) > maxSocketName {
		return bad(fmt.Sprintf("at most %d", maxSocketName), "the name is %d bytes long", len(s))
	}
	for _, c := range s {
		if c < ' ' || c >= 0x7f || c == ':' || c == '\\' {
			return bad(`printable ASCII without ":" and "\"`, "name %q holds %q", s, c)
		}
	}
	return nil
}
