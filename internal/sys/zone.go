package sys

import (
	"net"
	"strconv"
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
