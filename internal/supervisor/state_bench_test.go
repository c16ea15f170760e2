package supervisor

import (
	"fmt"
	"testing"

	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
)

// BenchmarkState is the cost of one state write with 10,000 sockets, without systemd.
func BenchmarkState(b *testing.B) {
	d := &Daemon{held: sockets.NewSet(), keeper: &keeper{have: map[string]uint64{}}}
	for i := range 10_000 {
		d.held.Add(&sockets.Socket{
			Meta: sockets.Meta{Origin: sockets.Bound, FDName: fmt.Sprintf("s%d", i), Cookie: uint64(i + 1), Backlog: 4096},
			Info: sys.Socket{Network: "tcp", Listening: true},
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		d.entries()
		data, err := d.snapshot().encode()
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(data)))
	}
}
