package config

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

const (
	// maxUnixPath is what sun_path holds besides its final NUL (unix(7)).
	maxUnixPath = 107
	// anyCID is VMADDR_CID_ANY (vsock(7)).
	anyCID = math.MaxUint32
)

// IsZero says whether a is no address.
func (a Address) IsZero() bool { return a == Address{} }

// String gives the canonical text, which [ParseAddress] reads back. The IPv6 wildcard is "[::]:PORT".
func (a Address) String() string {
	switch a.Network {
	case "":
		return ""
	case "vsock":
		cid := "any"
		if a.CID != anyCID {
			cid = strconv.FormatUint(uint64(a.CID), 10)
		}
		return fmt.Sprintf("vsock:%s:%d", cid, a.Port)
	case "tcp", "udp":
		host := a.Host
		if host == "" {
			host = "::"
		}
		text := net.JoinHostPort(host, strconv.FormatUint(uint64(a.Port), 10))
		if a.Network == "udp" {
			return "udp:" + text
		}
		return text
	}
	return a.Network + ":" + a.Path
}

// ParseAddress reads a listen address: HOST:PORT, tcp:HOST:PORT, udp:HOST:PORT, /PATH, unix:PATH,
// unixpacket:PATH, unixgram:PATH or vsock:CID:PORT. HOST is an IP literal (IPv6 in brackets, with a zone if
// need be), or empty or "*" for all addresses of both families; names are refused, as there may be no DNS at boot.
// PATH is absolute, or begins with "@" in the abstract namespace. CID is a number or "any".
func ParseAddress(s string) (Address, error) {
	if strings.HasPrefix(s, "/") {
		return parseUnix("unix", s)
	}
	network, rest, found := strings.Cut(s, ":")
	if !found {
		network = ""
	}
	switch network {
	case "unix", "unixpacket", "unixgram":
		return parseUnix(network, rest)
	case "vsock":
		return parseVsock(s, rest)
	case "tcp", "udp":
		return parseIP(network, s, rest)
	}
	switch {
	case s == "":
		return Address{}, bad(`such as "127.0.0.1:8080"`, "the address is empty")
	case s[0] == '@':
		return Address{}, bad(fmt.Sprintf("write %q", "unix:"+s), "%q is no address", s)
	case isNumber(s):
		return Address{}, bad(fmt.Sprintf("write %q", ":"+s), "%q is no address", s)
	}
	return parseIP("tcp", s, s)
}

func parseIP(network, whole, s string) (Address, error) {
	if rest, ok := strings.CutPrefix(s, "//"); ok {
		return Address{}, bad(fmt.Sprintf("write %q", network+":"+rest), "%q is a URL", whole)
	}
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 || strings.HasSuffix(s, "]") {
		return Address{}, bad(`such as "127.0.0.1:8080"`, "%q has no port", whole)
	}
	host, err := parseHost(whole, s[:colon])
	if err != nil {
		return Address{}, err
	}
	port, err := strconv.ParseUint(s[colon+1:], 10, 16)
	if err != nil || port == 0 {
		return Address{}, bad("1 to 65535", "%q in %q is no port", s[colon+1:], whole)
	}
	return Address{Network: network, Host: host, Port: uint32(port)}, nil
}

func parseHost(whole, s string) (string, error) {
	if s == "" || s == "*" {
		return "", nil
	}
	text, bracketed := strings.CutPrefix(s, "[")
	if bracketed {
		var closed bool
		if text, closed = strings.CutSuffix(text, "]"); !closed {
			return "", bad(`such as "[::1]:80"`, "%q has a bracket that is not closed", whole)
		}
	}
	ip, err := netip.ParseAddr(text)
	switch {
	case err != nil && !bracketed && !strings.ContainsAny(text, ":/[]%"):
		return "", bad("names are not looked up, as there may be no DNS at boot: write an IP address or *",
			"%q in %q is no IP address", text, whole)
	case err != nil:
		return "", bad(`such as "[::1]:80"`, "%q in %q is no IP address", text, whole)
	case ip.Is6() && !bracketed:
		return "", bad(`such as "[::1]:80"`, "the IPv6 address in %q is not in brackets", whole)
	case ip.Is4() && bracketed:
		return "", bad("write "+strconv.Quote(text), "the IPv4 address in %q is in brackets", whole)
	case !zoneValid(ip.Zone()):
		return "", bad("the name of an interface, such as eth0", "zone %q in %q is none", ip.Zone(), whole)
	case ip.IsLinkLocalUnicast() && ip.Is6() && ip.Zone() == "":
		return "", bad(fmt.Sprintf("add the interface: [%s%%eth0]", ip), "%q is link-local and names no interface", whole)
	}
	if ip = ip.Unmap(); ip == netip.IPv6Unspecified() {
		return "", nil
	}
	return ip.String(), nil
}

// zoneValid says whether zone is empty or can be the name of a network interface (15 bytes, IFNAMSIZ).
func zoneValid(zone string) bool {
	if len(zone) > 15 {
		return false
	}
	for i := range len(zone) {
		if c := zone[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("/:[]%", c) >= 0 {
			return false
		}
	}
	return true
}

func parseUnix(network, s string) (Address, error) {
	if err := checkUnixPath(s); err != nil {
		return Address{}, err
	}
	return Address{Network: network, Path: s}, nil
}

func checkUnixPath(s string) error {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return bad("", "path %q holds a control character", s)
		}
	}
	switch {
	case len(s) > maxUnixPath:
		return bad(fmt.Sprintf("at most %d fit into the address of a socket", maxUnixPath), "path %q is %d bytes long", s, len(s))
	case s == "@":
		return bad(`such as "unix:@web"`, "the abstract name is empty")
	case strings.HasPrefix(s, "@"):
		return nil
	case !strings.HasPrefix(s, "/"):
		return bad(`write a path from /, or "@name" in the abstract namespace`, "path %q is not absolute", s)
	case s == "/" || path.Clean(s) != s:
		return bad("a path to a file, without //, . and ..", "path %q is not in its shortest form", s)
	}
	return nil
}

func parseVsock(whole, s string) (Address, error) {
	cid, port, found := strings.Cut(s, ":")
	if !found {
		return Address{}, bad(`such as "vsock:any:8080"`, "%q has no port", whole)
	}
	a := Address{Network: "vsock", CID: anyCID}
	if cid != "any" {
		n, err := strconv.ParseUint(cid, 10, 32)
		if err != nil || n == anyCID {
			return Address{}, bad(`a number or "any"`, "%q in %q is no CID", cid, whole)
		}
		a.CID = uint32(n)
	}
	n, err := strconv.ParseUint(port, 10, 32)
	if err != nil || n == math.MaxUint32 {
		return Address{}, bad("0 to 4294967294", "%q in %q is no port", port, whole)
	}
	a.Port = uint32(n)
	return a, nil
}
