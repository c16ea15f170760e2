package getsocks_test

import (
	"context"
	"net"
	"testing"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/getsocks"
)

func BenchmarkFetch5(b *testing.B)     { benchmarkFetch(b, 5) }
func BenchmarkFetch1000(b *testing.B)  { benchmarkFetch(b, 1000) }
func BenchmarkFetch10000(b *testing.B) { benchmarkFetch(b, 10000) }

// benchmarkFetch measures a whole exchange between Serve and FetchConn in one process.
func benchmarkFetch(b *testing.B, n int) {
	if soft, _, err := sys.NofileLimit(); err != nil || soft < uint64(n)+100 {
		b.Skipf("the limit on descriptors is %d", soft)
	}
	held := listeners(b, 1)
	list := make([]getsocks.Socket, n)
	for i := range list {
		list[i].FD = held[0]
	}
	for b.Loop() {
		client, server := pair(b)
		served := make(chan error, 1)
		go func(c *net.UnixConn) { served <- getsocks.Serve(context.Background(), c, list) }(server)
		got, err := getsocks.FetchConn(context.Background(), client)
		if err != nil {
			b.Fatal(err)
		}
		if err := <-served; err != nil {
			b.Fatal(err)
		}
		getsocks.CloseAll(got)
		client.Close()
		server.Close()
	}
}
