package getsocks_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/getsocks"
)

// FuzzFetch plays a peer that answers anything: script is a series of messages, each a byte with the number of
// descriptors (modulo 5), a byte with the length, and that many bytes.
func FuzzFetch(f *testing.F) {
	message := func(fds int, p []byte) []byte { return append([]byte{byte(fds), byte(len(p))}, p...) }
	join := func(parts ...[]byte) (all []byte) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	f.Add([]byte{})
	f.Add(message(0, number(0)))
	f.Add(join(message(0, number(2)), message(2, plain(2))))
	f.Add(join(message(0, number(2)), message(1, plain(1)), message(1, plain(1))))
	f.Add(join(message(0, number(3)), message(3, []byte("\x00\x00\x00\x00\x00\x00\x00\x02lo\x00\x00\x00\x00\x04raha\x00\x00\x00\x00\x00"))))
	f.Add(join(message(0, number(1)), message(1, plain(1)[:3]), message(0, plain(1)[3:])))
	f.Add(join(message(0, number(1)), message(4, plain(4))))
	f.Add(join(message(1, number(1)), message(0, number(-1))))
	f.Add(message(0, []byte("Unknown command: '_getsocks'\n")))
	f.Fuzz(func(t *testing.T, script []byte) {
		held := listeners(t, 1)
		before := openSockets(t)
		client, server := pair(t)
		sent := make(chan struct{})
		go func() { // beside the client: it may be more than the kernel keeps
			defer close(sent)
			for len(script) >= 2 && len(script) < 4096 {
				fds := make([]*sys.FD, script[0]%5)
				for i := range fds {
					fds[i] = held[0]
				}
				n := min(int(script[1]), len(script)-2)
				if n == 0 {
					fds = nil
				}
				send(server, script[2:2+n], fds...)
				script = script[2+n:]
			}
			server.CloseWrite()
		}()
		got, err := fetchWithin(client)
		if err != nil && got != nil {
			t.Errorf("%d sockets beside the error %v", len(got), err)
		}
		for _, s := range got {
			if info, err := sys.Inspect(s.FD.Num()); err != nil || !info.Listening {
				t.Errorf("received %+v (%v)", info, err)
			}
		}
		if err == nil && openSockets(t) != before+2+len(got) {
			t.Errorf("%d sockets open after receiving %d, %d before", openSockets(t), len(got), before)
		}
		getsocks.CloseAll(got)
		client.Close()
		<-sent
		server.Close()
		if n := openSockets(t); n != before {
			t.Errorf("%d sockets open, %d before", n, before)
		}
	})
}

func fetchWithin(c *net.UnixConn) ([]getsocks.Socket, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return getsocks.FetchConn(ctx, c)
}

// FuzzServe plays a client that asks and acknowledges anything.
func FuzzServe(f *testing.F) {
	f.Add([]byte("_getsocks\n0000"))
	f.Add([]byte(" _getsocks ; x\r\n0000"))
	f.Add([]byte("show info\n"))
	f.Add([]byte("\n"))
	f.Add([]byte("_getsocks"))
	f.Fuzz(func(t *testing.T, input []byte) {
		held := listeners(t, 1)
		before := openSockets(t)
		client, server := pair(t)
		if len(input) > 64<<10 {
			input = input[:64<<10]
		}
		client.Write(input)
		client.CloseWrite()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		getsocks.Serve(ctx, server, sockets(held))
		if ctx.Err() != nil {
			t.Error("waited for more from a client that had hung up")
		}
		// Who asked has the socket, and nobody else; nothing stays open.
		server.CloseWrite()
		given := 0
		for buf := make([]byte, 1024); ; {
			m, err := sys.ReadMessage(client, buf)
			given += len(m.FDs)
			sys.CloseAll(m.FDs)
			if err != nil || m.N == 0 {
				break
			}
		}
		line, _, whole := strings.Cut(string(input[:min(len(input), 1024)]), "\n")
		command, _, _ := strings.Cut(line, ";")
		words := strings.Fields(command)
		if asked := whole && len(words) > 0 && words[0] == "_getsocks"; given != map[bool]int{true: 1}[asked] {
			t.Errorf("%q was given %d sockets", line, given)
		}
		client.Close()
		server.Close()
		if n := openSockets(t); n != before {
			t.Errorf("%d sockets open, %d before", n, before)
		}
	})
}
