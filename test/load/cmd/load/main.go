// Command load asks a server for as long as told and prints what was lost.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/test/load"
)

func main() {
	var o load.Options
	o.Clients = map[load.Class]int{}
	flag.StringVar(&o.Target.Network, "network", "tcp", "tcp or unix")
	flag.StringVar(&o.Target.Address, "address", "127.0.0.1:8080", "host:port or path")
	flag.BoolVar(&o.Target.TLS, "tls", false, "speak TLS")
	flag.StringVar(&o.Path, "path", "/", "path of the request")
	flag.DurationVar(&o.Timeout, "timeout", 5*time.Second, "time for one request")
	flag.DurationVar(&o.Pause, "pause", 0, "pause between two requests of a client")
	flag.Int64Var(&o.Requests, "requests", 0, "stop after so many requests (0: when the time is over)")
	duration := flag.Duration("time", 10*time.Second, "how long")
	clients := map[load.Class]*int{}
	for class, n := range map[load.Class]int{load.New: 4, load.Late: 0, load.Keep: 0, load.Slow: 0, load.UDP: 0} {
		clients[class] = flag.Int(string(class), n, "clients of this class")
	}
	flag.Parse()
	for class, n := range clients {
		if *n > 0 {
			o.Clients[class] = *n
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *duration)
	defer cancel()
	result := load.Start(ctx, o).Wait()
	fmt.Println(result)
	if result.Failures() > 0 {
		os.Exit(1)
	}
}
