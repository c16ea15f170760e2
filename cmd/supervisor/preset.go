package main

import (
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/units"
)

// preset is what is known of a server: a directory of units/presets. These are the keys of its about.toml.
type preset struct {
	Title string `toml:"title"`
	// Sockets says who makes them: "unit" (the default: a .socket unit each), "bound" (the supervisor, for servers that
	// run as a user of their own: only who owns a socket can steer it), or "self" (the server itself).
	Sockets string `toml:"sockets"`
	// Socket is the name of the first one, Listen are the addresses unless the user names others.
	Socket string   `toml:"socket"`
	Listen []string `toml:"listen"`
	// Protocols are those of each address, by default tcp alone. Unix says that a Unix socket will do as well, Single
	// that the server takes one socket only.
	Protocols []string `toml:"protocols"`
	Unix      bool     `toml:"unix"`
	Single    bool     `toml:"single"`
	// Logins says that it gives logins, which must not be confined as a service is.
	Logins bool `toml:"logins"`
	// Nonblock is what the server wants O_NONBLOCK to be; nil if it does not matter.
	Nonblock *bool `toml:"nonblock"`
	// User is whom the service runs as; empty where the server starts as root.
	User string `toml:"user"`
	// Replaces are the units of the distribution's package that have the port now.
	Replaces []string `toml:"replaces"`
	// Change is what to change in the server's own configuration, Limits what the preset cannot promise.
	Change string `toml:"change"`
	Limits string `toml:"limits"`

	name, service, dropin string
}

// presetNames lists the presets, sorted.
func presetNames() []string {
	entries, err := fs.ReadDir(units.Files, "presets")
	if err != nil {
		panic(err) // they are in the binary
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func loadPreset(name string) (*preset, error) {
	if !slices.Contains(presetNames(), name) {
		return nil, usageError{fmt.Sprintf("there is no preset %q", name), suggest(name, presetNames(), "supervisor init --list")}
	}
	p := &preset{name: name, Sockets: "unit", Protocols: []string{"tcp"}}
	about, err := p.read("about.toml")
	if err != nil {
		return nil, err
	}
	meta, err := toml.Decode(about, p)
	if err != nil {
		return nil, fmt.Errorf("preset %s: %w", name, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("preset %s: unknown keys %v", name, unknown)
	}
	if p.service, err = p.read("service.toml"); err != nil {
		return nil, err
	}
	p.dropin, _ = p.read("dropin.conf") // few have one
	return p, nil
}

func (p *preset) read(file string) (string, error) {
	data, err := fs.ReadFile(units.Files, path.Join("presets", p.name, file))
	return string(data), err
}

// wanted is a socket that a preset asks for.
type wanted struct {
	name    string
	address config.Address
	// only6 says that an IPv6 wildcard leaves IPv4 to another socket.
	only6 bool
}

// sockets names the sockets for the addresses given, or for the preset's own if there are none.
func (p *preset) sockets(addresses []string) ([]wanted, error) {
	if p.Sockets == "self" {
		if len(addresses) > 0 {
			return nil, usageError{p.name + " binds its sockets by itself: --listen has no place", "write the addresses into the server's configuration"}
		}
		return nil, nil
	}
	if len(addresses) == 0 {
		addresses = p.Listen
	}
	if p.Single && len(addresses) > 1 {
		return nil, usageError{p.name + " takes one socket only, as this preset runs it", "--listen :PORT is all addresses of IPv4 and IPv6"}
	}
	var list []wanted
	for i, text := range addresses {
		a, err := config.ParseAddress(text)
		if err != nil {
			return nil, usageError{"--listen: " + err.Error(), ""}
		}
		if err := p.accepts(a, text); err != nil {
			return nil, err
		}
		for _, protocol := range p.Protocols {
			w := wanted{name: p.Socket, address: a}
			if a.Network == "tcp" {
				w.address.Network = protocol
			}
			if protocol == "udp" {
				w.name += "-udp"
			}
			if i > 0 {
				w.name += "-" + strconv.Itoa(i+1)
			}
			list = append(list, w)
		}
	}
	for i, w := range list {
		four := w.address
		four.Host = "0.0.0.0"
		list[i].only6 = w.address.Host == "" && slices.ContainsFunc(list, func(o wanted) bool { return o.address == four })
	}
	return list, nil
}

func (p *preset) accepts(a config.Address, text string) error {
	switch {
	case a.Network == "tcp", a.Network == "unix" && p.Unix:
		return nil
	case a.Network == "unix":
		return usageError{fmt.Sprintf("the preset %s does not do with a Unix socket", p.name), "--listen HOST:PORT"}
	}
	return usageError{fmt.Sprintf("--listen %s: a preset takes HOST:PORT", text), strings.Join(p.Protocols, " and ") + " are what " + p.name + " needs"}
}

// listenLine is the directive of a .socket unit.
func (w wanted) listenLine() string {
	a := w.address
	switch a.Network {
	case "udp":
		return "ListenDatagram=" + hostPort(a)
	case "tcp":
		return "ListenStream=" + hostPort(a)
	}
	return "ListenStream=" + a.Path
}

func hostPort(a config.Address) string {
	host := a.Host
	if host == "" {
		host = "::"
	}
	return net.JoinHostPort(host, strconv.Itoa(int(a.Port)))
}

// specific reports whether the address may be missing when the system boots.
func (w wanted) specific() bool {
	ip, err := netip.ParseAddr(w.address.Host)
	return err == nil && !ip.IsUnspecified() && !ip.IsLoopback()
}

// privileged reports whether only root, or CAP_NET_BIND_SERVICE, may bind the address.
func (w wanted) privileged() bool {
	return (w.address.Network == "tcp" || w.address.Network == "udp") && w.address.Port < 1024
}
