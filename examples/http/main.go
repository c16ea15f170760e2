// Http is an HTTP server that loses no request when it is replaced: under the supervisor, under systemd with socket
// activation (FileDescriptorName=http), or by hand.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/8265a91a/supervisor/pkg/graceful"
)

func main() {
	w, err := graceful.New(graceful.Options{})
	if err != nil {
		log.Fatal(err)
	}
	l, err := w.Listen("http", "tcp", "127.0.0.1:8080")
	if err != nil {
		log.Fatal(err)
	}
	w.HTTP(l, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(rw, "hello from pid=%d\n", os.Getpid())
	})})
	if err := w.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
