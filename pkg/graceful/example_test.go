package graceful_test

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/8265a91a/supervisor/pkg/graceful"
)

// An ordinary HTTP server that can be replaced without losing a request.
func Example() {
	w, err := graceful.New(graceful.Options{})
	if err != nil {
		log.Fatal(err)
	}
	l, err := w.Listen("http", "tcp", "127.0.0.1:8080")
	if err != nil {
		log.Fatal(err)
	}
	w.HTTP(l, &http.Server{Handler: http.FileServer(http.Dir("/srv/www"))})
	if err := w.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// A counter that goes on where the generation before left it.
func ExampleWorker_Keep() {
	w, err := graceful.New(graceful.Options{})
	if err != nil {
		log.Fatal(err)
	}
	var starts int
	if data, err := w.State("starts"); err == nil {
		fmt.Sscan(string(data), &starts)
	}
	if err := w.Keep("starts", fmt.Append(nil, starts+1)); err != nil {
		log.Print(err)
	}
}
