// Raw serves lines over TCP and datagrams over UDP, and hands a counter to the next generation: what net/http hides.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"github.com/8265a91a/supervisor/pkg/graceful"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	w, err := graceful.New(graceful.Options{})
	if err != nil {
		return err
	}
	lines, err := w.Listen("lines", "tcp", "127.0.0.1:7000")
	if err != nil {
		return err
	}
	packets, err := w.ListenPacket("packets", "udp", "127.0.0.1:7000")
	if err != nil {
		return err
	}
	generation := count(w)
	w.Conns(lines, func(_ context.Context, c net.Conn) {
		ended := make(chan struct{})
		defer close(ended)
		go func() {
			select {
			case <-w.Draining():
				// An idle client is not waited for longer than this.
				_ = c.SetReadDeadline(time.Now().Add(time.Second))
			case <-ended:
			}
		}()
		for in := bufio.NewScanner(c); in.Scan(); {
			fmt.Fprintf(c, "pid=%d generation %d: %s\n", os.Getpid(), generation, in.Text())
		}
	})
	w.Packets(packets, func(c net.PacketConn) error {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return err
			}
			_, _ = c.WriteTo(fmt.Appendf(nil, "pid=%d generation %d: %s", os.Getpid(), generation, buf[:n]), from)
		}
	})
	return w.Run(context.Background())
}

// count reads how many generations there were, and keeps one more for the next.
func count(w *graceful.Worker) int {
	n := 0
	if data, err := w.State("generations"); err == nil {
		_, _ = fmt.Sscan(string(data), &n)
	}
	n++
	if err := w.Keep("generations", fmt.Append(nil, n)); err != nil {
		log.Print(err)
	}
	return n
}
