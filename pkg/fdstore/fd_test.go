package fdstore_test

import (
	"net"
	"syscall"
	"testing"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/fdstore"
)

// TestFDFromOutside makes descriptors as an importer does.
func TestFDFromOutside(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fd, err := fdstore.DupConn(l.(*net.TCPListener))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := syscall.Dup(fd.Num())
	if err != nil {
		t.Fatal(err)
	}
	own := fdstore.NewFD(raw)
	if same, err := sys.SameDescription(own.Num(), fd.Num()); err != nil || !same {
		t.Errorf("not the listener's socket: %v", err)
	}
	if nonblock, err := sys.Nonblock(fd.Num()); err != nil || !nonblock {
		t.Errorf("the listener lost O_NONBLOCK (%v)", err)
	}
	fd.Close()
	own.Close()
	if _, err := sys.KindOf(raw); err == nil {
		t.Errorf("descriptor %d outlived Close", raw)
	}
	go func() {
		if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
			c.Close()
		}
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatalf("the listener does not work any more: %v", err)
	}
	c.Close()
}
