package sys

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// zoneID turns the zone of an IPv6 address, a number or an interface's name, into its index.
func zoneID(zone string) (uint32, error) {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(ifi.Index), nil
}

// SameHost reports whether host, an IP literal whose zone may be the name of an interface, is what a socket is bound to:
// there the zone is a number, and missing where the address needs none.
func SameHost(host, bound string) bool {
	if host == bound || !strings.Contains(host, "%") {
		return host == bound
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	b, err := netip.ParseAddr(bound)
	if err != nil || a.WithZone("") != b.WithZone("") {
		return false
	}
	if b.Zone() == "" {
		return true
	}
	id, err := zoneID(a.Zone())
	return err == nil && strconv.FormatUint(uint64(id), 10) == b.Zone()
}
