package config_test

import (
	"math"
	"strings"
	"testing"

	"github.com/8265a91a/supervisor/internal/config"
)

func TestParseAddress(t *testing.T) {
	tcp := func(host string, port uint32) config.Address {
		return config.Address{Network: "tcp", Host: host, Port: port}
	}
	path := strings.Repeat("x", 106)
	for _, test := range []struct {
		text, canonical string
		want            config.Address
	}{
		{"127.0.0.1:8080", "127.0.0.1:8080", tcp("127.0.0.1", 8080)},
		{"tcp:127.0.0.1:8080", "127.0.0.1:8080", tcp("127.0.0.1", 8080)},
		{"0.0.0.0:80", "0.0.0.0:80", tcp("0.0.0.0", 80)},
		{":8080", "[::]:8080", tcp("", 8080)},
		{"*:8080", "[::]:8080", tcp("", 8080)},
		{"tcp:*:8080", "[::]:8080", tcp("", 8080)},
		{"tcp::8080", "[::]:8080", tcp("", 8080)},
		{"[::]:8080", "[::]:8080", tcp("", 8080)},
		{"[::1]:80", "[::1]:80", tcp("::1", 80)},
		{"[0:0::1]:80", "[::1]:80", tcp("::1", 80)},
		{"[fe80::1%eth0]:80", "[fe80::1%eth0]:80", tcp("fe80::1%eth0", 80)},
		{"[::ffff:10.0.0.1]:65535", "10.0.0.1:65535", tcp("10.0.0.1", 65535)},
		{"udp:127.0.0.1:53", "udp:127.0.0.1:53", config.Address{Network: "udp", Host: "127.0.0.1", Port: 53}},
		{"udp:[::1]:53", "udp:[::1]:53", config.Address{Network: "udp", Host: "::1", Port: 53}},
		{"/run/a.sock", "unix:/run/a.sock", config.Address{Network: "unix", Path: "/run/a.sock"}},
		{"unix:/run/a b:c", "unix:/run/a b:c", config.Address{Network: "unix", Path: "/run/a b:c"}},
		{"unix:/" + path, "unix:/" + path, config.Address{Network: "unix", Path: "/" + path}},
		{"unix:@web", "unix:@web", config.Address{Network: "unix", Path: "@web"}},
		{"unix:@/web/../x", "unix:@/web/../x", config.Address{Network: "unix", Path: "@/web/../x"}},
		{"unixpacket:/run/a", "unixpacket:/run/a", config.Address{Network: "unixpacket", Path: "/run/a"}},
		{"unixgram:@a", "unixgram:@a", config.Address{Network: "unixgram", Path: "@a"}},
		{"vsock:3:1024", "vsock:3:1024", config.Address{Network: "vsock", CID: 3, Port: 1024}},
		{"vsock:any:1024", "vsock:any:1024", config.Address{Network: "vsock", CID: math.MaxUint32, Port: 1024}},
	} {
		got, err := config.ParseAddress(test.text)
		if err != nil || got != test.want || got.String() != test.canonical {
			t.Errorf("%q: got %+v (%s), %v", test.text, got, got, err)
		}
		if again, err := config.ParseAddress(got.String()); err != nil || again != got {
			t.Errorf("%q: %q is read back as %+v, %v", test.text, got.String(), again, err)
		}
	}
}

func TestParseAddressMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"":                     `the address is empty (such as "127.0.0.1:8080")`,
		"8080":                 `"8080" is no address (write ":8080")`,
		"@web":                 `"@web" is no address (write "unix:@web")`,
		"127.0.0.1":            `"127.0.0.1" has no port (such as "127.0.0.1:8080")`,
		"[::1]":                `"[::1]" has no port (such as "127.0.0.1:8080")`,
		"localhost:80":         `"localhost" in "localhost:80" is no IP address (names are not looked up, as there may be no DNS at boot: write an IP address or *)`,
		"1.2.3:80":             `"1.2.3" in "1.2.3:80" is no IP address (names are not looked up, as there may be no DNS at boot: write an IP address or *)`,
		"::1:80":               `the IPv6 address in "::1:80" is not in brackets (such as "[::1]:80")`,
		"sctp:1.2.3.4:80":      `"sctp:1.2.3.4" in "sctp:1.2.3.4:80" is no IP address (such as "[::1]:80")`,
		"[::1:80":              `"[::1:80" has a bracket that is not closed (such as "[::1]:80")`,
		"[127.0.0.1]:80":       `the IPv4 address in "[127.0.0.1]:80" is in brackets (write "127.0.0.1")`,
		"[fe80::1]:80":         `"[fe80::1]:80" is link-local and names no interface (add the interface: [fe80::1%eth0])`,
		"[fe80::1%a/b]:80":     `zone "a/b" in "[fe80::1%a/b]:80" is none (the name of an interface, such as eth0)`,
		"127.0.0.1:0":          `"0" in "127.0.0.1:0" is no port (1 to 65535)`,
		"127.0.0.1:65536":      `"65536" in "127.0.0.1:65536" is no port (1 to 65535)`,
		"127.0.0.1:http":       `"http" in "127.0.0.1:http" is no port (1 to 65535)`,
		"127.0.0.1:":           `"" in "127.0.0.1:" is no port (1 to 65535)`,
		"tcp://127.0.0.1:80":   `"tcp://127.0.0.1:80" is a URL (write "tcp:127.0.0.1:80")`,
		"unix:run/a":           `path "run/a" is not absolute (write a path from /, or "@name" in the abstract namespace)`,
		"unix:":                `path "" is not absolute (write a path from /, or "@name" in the abstract namespace)`,
		"unix:@":               `the abstract name is empty (such as "unix:@web")`,
		"unix:///run/a":        `path "///run/a" is not in its shortest form (a path to a file, without //, . and ..)`,
		"/run/":                `path "/run/" is not in its shortest form (a path to a file, without //, . and ..)`,
		"/":                    `path "/" is not in its shortest form (a path to a file, without //, . and ..)`,
		"/run/a\n":             `path "/run/a\n" holds a control character`,
		"vsock:1234":           `"vsock:1234" has no port (such as "vsock:any:8080")`,
		"vsock::1":             `"" in "vsock::1" is no CID (a number or "any")`,
		"vsock:4294967295:1":   `"4294967295" in "vsock:4294967295:1" is no CID (a number or "any")`,
		"vsock:any:4294967295": `"4294967295" in "vsock:any:4294967295" is no port (0 to 4294967294)`,
		"unixgram:/" + strings.Repeat("x", 107): `path "/` + strings.Repeat("x", 107) +
			`" is 108 bytes long (at most 107 fit into the address of a socket)`,
	} {
		if a, err := config.ParseAddress(text); err == nil || err.Error() != want {
			t.Errorf("%q: got %+v, %v\nwant %s", text, a, err, want)
		}
	}
}

func TestZeroAddress(t *testing.T) {
	if a := (config.Address{}); !a.IsZero() || a.String() != "" {
		t.Errorf("the zero value is %q", a)
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"127.0.0.1:80", "[fe80::1%eth0]:80", "udp:*:53", "/run/x", "unix:@x", "unixpacket:/x", "vsock:any:1",
		"[::ffff:1.2.3.4]:1", ":1", "tcp://x", "[::1%[]:1", "8080", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := config.ParseAddress(s)
		if err != nil {
			if !a.IsZero() {
				t.Fatalf("%q: %+v beside %v", s, a, err)
			}
			return
		}
		if again, err := config.ParseAddress(a.String()); err != nil || again != a {
			t.Fatalf("%q: %+v is written %q and read back as %+v, %v", s, a, a.String(), again, err)
		}
	})
}
