package sys_test

import (
	"os"
	"testing"

	"github.com/8265a91a/supervisor/internal/leaktest"
	"github.com/8265a91a/supervisor/internal/sys"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }

// must fails the test on an error, and closes the descriptor at its end.
func must(tb testing.TB, fd *sys.FD, err error) *sys.FD {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { fd.Close() })
	return fd
}

// open reports whether the number is an open descriptor.
func open(n int) bool {
	_, err := sys.KindOf(n)
	return err == nil
}

func same(tb testing.TB, a, b *sys.FD) bool {
	tb.Helper()
	eq, err := sys.SameDescription(a.Num(), b.Num())
	if err != nil {
		tb.Fatal(err)
	}
	return eq
}
