package main

import (
	"fmt"
	"io/fs"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/units"
)

// file is what init writes.
type file struct{ path, content string }

// plan is all of what init writes for one service.
type plan struct {
	files []file
	// units are to be enabled and started.
	units []string
}

const (
	configDir = "/etc/supervisor"
	unitDir   = "/etc/systemd/system"
)

// render makes the files of service name. harden is a grade of hardening, or empty.
func (p *preset) render(name string, list []wanted, harden string) (plan, error) {
	origin := "# Written by \"supervisor init " + p.name + " " + name + "\"."
	text := origin + " All keys: supervisor.toml(5).\n" + p.expand(name, p.service, list) + p.tables(list)
	toml := file{path.Join(configDir, name+".toml"), text}
	cfg, err := config.Parse(name, toml.path, []byte(text))
	if err != nil {
		return plan{}, fmt.Errorf("preset %s: %w", p.name, err)
	}
	out := plan{files: []file{toml}}
	if p.Sockets == "unit" {
		for _, w := range list {
			unit := "supervisor-" + name + "-" + w.name + ".socket"
			out.units = append(out.units, unit)
			out.files = append(out.files, file{path.Join(unitDir, unit), origin + "\n" + w.unit(name, steered(cfg))})
		}
	}
	dropins := path.Join(unitDir, "supervisor@"+name+".service.d")
	if text := p.dropIn(name, out.units, list); text != "" {
		out.files = append(out.files, file{path.Join(dropins, "preset.conf"), origin + "\n" + text})
	}
	if harden != "" {
		text, err := hardening(harden)
		if err != nil {
			return plan{}, err
		}
		if p.Logins {
			return plan{}, usageError{"--harden is not for " + p.name + ": the sessions of its users would be confined as well", "init it without --harden"}
		}
		out.files = append(out.files, file{path.Join(dropins, "hardening.conf"), text})
	}
	out.units = append(out.units, "supervisor@"+name+".service")
	return out, nil
}

// expand fills in what is not known before init: the name, and in a line that shows an address, one line for each.
// Placeholders of the form ${...} are the supervisor's.
func (p *preset) expand(name, text string, list []wanted) string {
	var b strings.Builder
	for line := range strings.Lines(strings.ReplaceAll(text, "@NAME@", name)) {
		last := ""
		for _, w := range list {
			filled := w.fill(line)
			if filled != last { // a line without an address, or of an address for TCP and for UDP
				b.WriteString(filled)
			}
			last = filled
		}
		if len(list) == 0 {
			b.WriteString(line)
		}
	}
	return b.String()
}

func (w wanted) fill(line string) string {
	a := w.address
	if a.Path != "" {
		return strings.NewReplacer("@SOCKET@", w.name, "@NETWORK@", a.Network, "@LISTEN@", a.Path).Replace(line)
	}
	host := a.Host
	if host == "" {
		host = "::"
	}
	port := strconv.Itoa(int(a.Port))
	return strings.NewReplacer("@SOCKET@", w.name, "@NETWORK@", a.Network, "@LISTEN@", net.JoinHostPort(host, port), "@HOST@", host, "@PORT@", port).Replace(line)
}

// tables are the [[socket]] tables: of sockets that the supervisor binds, or with options for those of units.
func (p *preset) tables(list []wanted) string {
	var b strings.Builder
	for _, w := range list {
		if p.Sockets == "unit" && p.Nonblock == nil {
			continue
		}
		fmt.Fprintf(&b, "\n[[socket]]\nname = %q\n", w.name)
		if p.Sockets == "bound" {
			fmt.Fprintf(&b, "listen = %q\n", w.address)
			if w.only6 {
				b.WriteString("v6only = true\n")
			}
			if w.specific() {
				b.WriteString("free_bind = true\n")
			}
		}
		if p.Nonblock != nil {
			fmt.Fprintf(&b, "nonblock = %t\n", *p.Nonblock)
		}
	}
	return b.String()
}

// steered reports whether connections are steered away from a generation that drains.
func steered(c *config.Config) bool {
	return c.Handoff.Order == config.OrderStartFirst && (c.Drain.Divert == config.DivertAuto || c.Drain.Divert == config.DivertSteer)
}

// unit is the .socket unit.
func (w wanted) unit(name string, steered bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[Unit]\nDescription=Socket %s of service %s\nDocumentation=man:supervisor(8)\n\n[Socket]\n%s\n", w.name, name, w.listenLine())
	fmt.Fprintf(&b, "FileDescriptorName=%s\nService=supervisor@%s.service\n", w.name, name)
	if w.address.Host == "" && w.address.Path == "" {
		b.WriteString("BindIPv6Only=" + map[bool]string{true: "ipv6-only", false: "both"}[w.only6] + "\n")
	}
	if w.specific() {
		b.WriteString("# The address may come up after the socket.\nFreeBind=yes\n")
	}
	if steered {
		b.WriteString("# Two generations have a socket each; with this from the start, no connection waits when the second is made.\nReusePort=yes\n")
	}
	b.WriteString("# The default closes the socket for good when connections come in while the service does not start.\n")
	b.WriteString("TriggerLimitIntervalSec=0\n\n[Install]\nWantedBy=sockets.target\n")
	return b.String()
}

// dropIn is the drop-in of the service; empty if it needs none.
func (p *preset) dropIn(name string, socketUnits []string, list []wanted) string {
	var lines []string
	if len(socketUnits) > 0 {
		lines = append(lines, "# Not Requires= and not PartOf=: a restart of one must not restart the other.", "Sockets="+strings.Join(socketUnits, " "))
	}
	if p.User != "" {
		lines = append(lines, "User="+p.User, "NoNewPrivileges=yes")
		if slices.ContainsFunc(list, wanted.privileged) {
			lines = append(lines, "AmbientCapabilities=CAP_NET_BIND_SERVICE")
		}
	}
	lines = append(lines, strings.TrimPrefix(p.expand(name, p.dropin, list), "[Service]\n"))
	text := strings.TrimSuffix(strings.Join(lines, "\n"), "\n")
	if text == "" {
		return ""
	}
	return "[Service]\n" + text + "\n"
}

func hardening(grade string) (string, error) {
	data, err := fs.ReadFile(units.Files, path.Join("hardening", grade+".conf"))
	if err != nil {
		return "", usageError{fmt.Sprintf("there is no grade of hardening %q", grade), "any (for any server that gives no logins), or known (for a server that needs no more than it allows)"}
	}
	return string(data), nil
}
