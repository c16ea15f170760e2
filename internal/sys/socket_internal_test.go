package sys

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestListenerOptions(t *testing.T) {
	fd, err := OpenListener(ListenSpec{Network: "tcp", Host: "127.0.0.1", DeferAccept: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	if !flag(fd.Num(), unix.SOL_SOCKET, unix.SO_REUSEADDR) {
		t.Error("a TCP listener is without SO_REUSEADDR")
	}
	if v, err := unix.GetsockoptInt(fd.Num(), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT); err != nil || v < 3 {
		t.Errorf("TCP_DEFER_ACCEPT is %d (%v)", v, err)
	}
	udp, err := OpenListener(ListenSpec{Network: "udp", Host: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if flag(udp.Num(), unix.SOL_SOCKET, unix.SO_REUSEADDR) {
		t.Error("a UDP socket with SO_REUSEADDR shares its port with anybody")
	}
}

func TestZoneID(t *testing.T) {
	if id, err := zoneID("7"); id != 7 || err != nil {
		t.Errorf("zone 7 is %d (%v)", id, err)
	}
	if id, err := zoneID("lo"); id == 0 || err != nil {
		t.Errorf("zone lo is %d (%v)", id, err)
	}
	if _, err := zoneID("nosuchinterface"); err == nil {
		t.Error("an interface that does not exist has a zone")
	}
}

func TestNetworkName(t *testing.T) {
	if got := networkName(unix.AF_NETLINK, unix.SOCK_RAW); got != "16/3" {
		t.Errorf("got %q", got)
	}
}
