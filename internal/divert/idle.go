package divert

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

// Connections counts the connections that were accepted from the listeners and are still open in some process of pids,
// idle ones included; one that several processes share counts once. What waits in an accept queue belongs to nobody
// yet and does not count ([Queue]). Datagram and vsock sockets have none.
func Connections(pids []int, listeners []sys.Socket) (int, error) {
	held := map[uint64]struct{}{}
	for _, pid := range pids {
		err := descriptors(pid, func(_ int, target string) {
			if inode, ok := socketInode(target); ok {
				held[inode] = struct{}{}
			}
		})
		if err != nil {
			return 0, fmt.Errorf("count connections: %w", err)
		}
	}
	for _, l := range listeners {
		delete(held, l.Inode)
	}
	if len(held) == 0 {
		return 0, nil
	}
	n, err := countHeld(held, listeners)
	if err != nil {
		return 0, fmt.Errorf("count connections: %w", err)
	}
	return n, nil
}

func countHeld(held map[uint64]struct{}, listeners []sys.Socket) (int, error) {
	type port struct {
		v6     bool
		number uint16
	}
	ports, names := map[port]bool{}, map[string]bool{}
	for _, l := range listeners {
		switch l.Network {
		case "tcp":
			ports[port{strings.Contains(l.Host, ":"), uint16(l.Port)}] = true
		case "unix", "unixpacket":
			names[l.Address] = true
		}
	}
	n := 0
	count := func(s sys.DiagSocket) {
		if _, ok := held[s.Inode]; ok {
			n++
		}
	}
	for p := range ports {
		if err := sys.DiagInet(false, p.v6, p.number, sys.StateConnected, count); err != nil {
			return 0, err
		}
	}
	if len(names) == 0 {
		return n, nil
	}
	// An accepted Unix socket has the name of its listener.
	err := sys.DiagUnix(sys.StateConnected, func(s sys.DiagSocket) {
		if names[s.Name] {
			count(s)
		}
	})
	return n, err
}

// HalfOpen returns the identities of the TCP connections to the addresses of the listeners whose handshake is under way,
// or for whose first data TCP_DEFER_ACCEPT waits. Each will wait in the queue of the listener that got its SYN; the
// kernel does not tell which of several that is.
func HalfOpen(listeners []sys.Socket) (map[uint64]bool, error) {
	found := map[uint64]bool{}
	for _, l := range listeners {
		if l.Network != "tcp" {
			continue
		}
		host, err := netip.ParseAddr(l.Host)
		if err == nil {
			err = sys.DiagInet(false, host.Is6(), uint16(l.Port), sys.StateHalfOpen, func(s sys.DiagSocket) {
				if host.IsUnspecified() || s.Addr == host.WithZone("") {
					found[s.Cookie] = true
				}
			})
		}
		if err != nil {
			return nil, fmt.Errorf("look for handshakes under way at %s: %w", l.Address, err)
		}
	}
	return found, nil
}

// The pauses of WaitIdle double from the first to the second.
const (
	idleFirst = 10 * time.Millisecond
	idleLast  = 200 * time.Millisecond
)

// WaitIdle asks count until it says 0. It ends with an error of count, or with the context's, which then says how many
// connections were left.
func WaitIdle(ctx context.Context, count func() (int, error)) error {
	for pause := idleFirst; ; pause = min(2*pause, idleLast) {
		n, err := count()
		if n == 0 || err != nil {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(fmt.Errorf("%d connections are still open", n), ctx.Err())
		}
	}
}
