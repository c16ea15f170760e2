package fdstore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/8265a91a/supervisor/pkg/fdstore"
)

// A service keeps a listening socket over its own restart.
func ExampleStore() {
	store, err := fdstore.Open(os.Getenv("NOTIFY_SOCKET"))
	if errors.Is(err, fdstore.ErrNoNotifySocket) {
		fmt.Println("not started by systemd: nothing survives")
		return
	}
	listener, err := net.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		fmt.Println(err)
		return
	}
	fd, err := fdstore.DupConn(listener.(*net.TCPListener))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer fd.Close()
	if err := store.Add("web", fd.Num(), true); err != nil {
		fmt.Println(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := store.Barrier(ctx); err != nil {
		fmt.Println(err)
	}
}
