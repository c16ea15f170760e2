package handoff_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sys"
)

// The kernel shows the interface of a link-local address by its number.
func TestSameAddress(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	other := lo.Index + 1
	for _, c := range []struct {
		configured, host string
		want             bool
	}{
		{"[fe80::1%lo]:80", fmt.Sprintf("fe80::1%%%d", lo.Index), true},
		{fmt.Sprintf("[fe80::1%%%d]:80", lo.Index), fmt.Sprintf("fe80::1%%%d", lo.Index), true},
		{"[fe80::1%lo]:80", fmt.Sprintf("fe80::1%%%d", other), false},
		{"[fe80::1%lo]:80", fmt.Sprintf("fe80::2%%%d", lo.Index), false},
		{"[fe80::1%nosuchinterface]:80", fmt.Sprintf("fe80::1%%%d", lo.Index), false},
		{"[::1%lo]:80", "::1", true}, // an address that needs no interface loses it
		{"[::1%lo]:80", "::2", false},
		{"[::1]:80", "::1", true},
		{":80", "::", true},
		{"127.0.0.1:80", "127.0.0.2", false},
	} {
		a, err := config.ParseAddress(c.configured)
		if err != nil {
			t.Fatal(err)
		}
		if got := handoff.SameAddress(a, sys.Socket{Network: "tcp", Host: c.host, Port: 80}); got != c.want {
			t.Errorf("%s and %s: %v", c.configured, c.host, got)
		}
		if handoff.SameAddress(a, sys.Socket{Network: "tcp", Host: c.host, Port: 81}) {
			t.Errorf("%s is another port's", c.configured)
		}
	}
}
