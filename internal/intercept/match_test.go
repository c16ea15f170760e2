package intercept_test

import (
	"net/netip"
	"testing"

	"github.com/8265a91a/supervisor/internal/intercept"
)

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		asked     string
		listeners []string
		want      int // index, or -1
	}{
		{"127.0.0.1:80", []string{"127.0.0.1:80"}, 0},
		{"127.0.0.1:80", []string{"127.0.0.1:81"}, -1},
		{"127.0.0.1:80", []string{"0.0.0.0:80"}, -1},
		{"127.0.0.1:80", []string{"[::]:80"}, -1},
		{"127.0.0.1:80", []string{"127.0.0.2:80", "127.0.0.1:80"}, 1},
		{"[::ffff:127.0.0.1]:80", []string{"127.0.0.1:80"}, 0},
		{"[fe80::1%1]:80", []string{"[fe80::1%1]:80"}, 0},
		{"0.0.0.0:80", []string{"127.0.0.1:80"}, 0},
		{"0.0.0.0:80", []string{"127.0.0.1:80", "[::]:80"}, 1},
		{"0.0.0.0:80", []string{"[::]:80", "0.0.0.0:80"}, 1},
		{"[::]:80", []string{"127.0.0.1:80"}, 0},
		{"[::]:80", []string{"0.0.0.0:80", "[::]:80"}, 1},
		{"[::]:80", []string{"0.0.0.0:80", "10.0.0.1:80"}, 0},
		{"[::]:80", nil, -1},
	} {
		var listeners []intercept.Listener
		for i, l := range tt.listeners {
			listeners = append(listeners, intercept.Listener{Network: "tcp", Address: netip.MustParseAddrPort(l), FD: i})
		}
		req := intercept.Request{Network: "tcp", Address: netip.MustParseAddrPort(tt.asked)}
		got, ok := intercept.Match(req, listeners)
		if !ok {
			got = -1
		}
		if got != tt.want {
			t.Errorf("%s of %v: %d, want %d", tt.asked, tt.listeners, got, tt.want)
		}
		req.Network = "udp"
		if _, ok := intercept.Match(req, listeners); ok {
			t.Errorf("%s: tcp given for udp", tt.asked)
		}
	}
}
