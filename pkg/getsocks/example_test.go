package getsocks_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/8265a91a/supervisor/pkg/getsocks"
)

// What does this HAProxy listen on? Its configuration needs
//
//	stats socket /run/haproxy/admin.sock expose-fd listeners
func ExampleFetch() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	sockets, err := getsocks.Fetch(ctx, "/run/haproxy/admin.sock")
	if err != nil {
		log.Fatal(err)
	}
	defer getsocks.CloseAll(sockets)
	for _, s := range sockets {
		fmt.Println(s.FD.Num(), s.Namespace, s.Interface)
	}
}

func ExampleTrimTemp() {
	fmt.Println(getsocks.TrimTemp("/run/haproxy/admin.sock.4711.tmp"))
	// Output: /run/haproxy/admin.sock
}
