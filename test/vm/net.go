package vm

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/test/load"
)

// Dial connects from the container's network, but from none of its services. Unix paths are the container's.
func (c *container) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if strings.HasPrefix(network, "unix") && !strings.HasPrefix(address, "@") {
		address = c.Path(address)
	}
	var conn net.Conn
	err := sys.InNetns(c.netns, func() error {
		var err error
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Load starts a load in the container's network. It is stopped at the latest when the test ends.
func (m *Machine) Load(o load.Options) *load.Run {
	if m.local {
		// Emulated processors need more time than a client would give.
		o.Timeout = max(o.Timeout, emulated*5*time.Second)
	}
	o.Dial = m.Dial
	run := load.Start(context.Background(), o)
	m.t.Cleanup(func() { run.Stop() })
	return run
}

// Get asks once over HTTP and returns the body, or the error as "error: …".
func (m *Machine) Get(address, path string) string {
	client := http.Client{Timeout: emulated * 5 * time.Second, Transport: &http.Transport{DialContext: m.Dial, DisableKeepAlives: true}}
	response, err := client.Get("http://" + address + path)
	if err != nil {
		return "error: " + err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(body)
}

// Worker asks once over HTTP and returns the pid that answered, 0 and the error text otherwise.
func (m *Machine) Worker(address string) (int, string) {
	body := m.Get(address, "/")
	_, rest, _ := strings.Cut(body, "pid=")
	end := strings.IndexFunc(rest, func(c rune) bool { return c < '0' || c > '9' })
	if end < 0 {
		end = len(rest)
	}
	pid, err := strconv.Atoi(rest[:end])
	if err != nil {
		return 0, body
	}
	return pid, ""
}

// ListeningInodes lists the inodes of the TCP sockets that listen on a port, v4 and v6, sorted.
func (m *Machine) ListeningInodes(port int) []uint64 {
	m.t.Helper()
	const listening = "0A"
	var inodes []uint64
	for _, table := range []string{"tcp", "tcp6"} {
		inodes = append(inodes, m.inodes(table, port, listening)...)
	}
	slices.Sort(inodes)
	return inodes
}

// BoundUDPInodes lists the inodes of the UDP sockets bound to a port, v4 and v6, sorted.
func (m *Machine) BoundUDPInodes(port int) []uint64 {
	m.t.Helper()
	const unconnected = "07"
	inodes := append(m.inodes("udp", port, unconnected), m.inodes("udp6", port, unconnected)...)
	slices.Sort(inodes)
	return inodes
}

func (m *Machine) inodes(table string, port int, state string) []uint64 {
	m.t.Helper()
	var inodes []uint64
	for line := range strings.Lines(m.ReadFile("/proc/1/net/" + table)) {
		f := strings.Fields(line)
		if len(f) < 10 || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) || f[3] != state {
			continue
		}
		inode, err := strconv.ParseUint(f[9], 10, 64)
		if err != nil {
			m.t.Fatalf("%s: %v in %q", table, err, line)
		}
		inodes = append(inodes, inode)
	}
	return inodes
}
