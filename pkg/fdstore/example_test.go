package fdstore_test

import (
	"context"
	"errors"
	"fmt"
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
	var listener *fdstore.FD // from sys.OpenListener, activation.Take, …
	if err := store.Add("web", listener.Num(), true); err != nil {
		fmt.Println(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := store.Barrier(ctx); err != nil {
		fmt.Println(err)
	}
}
