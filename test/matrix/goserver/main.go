// Command goserver is what an ordinary Go server is: net/http on a socket passed by LISTEN_FDS (or by Einhorn's
// EINHORN_FD_0), and Shutdown on SIGTERM. The file that its last argument names breaks it.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	mode, _ := os.ReadFile(os.Args[len(os.Args)-1])
	switch strings.TrimSpace(string(mode)) {
	case "exit":
		log.Fatal("no database, giving up")
	case "hang":
		time.Sleep(time.Hour)
	case "die":
		time.AfterFunc(300*time.Millisecond, func() { os.Exit(7) })
	}
	take := listener
	if strings.TrimSpace(string(mode)) == "ignore" {
		take = func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }
	}
	l, err := take()
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{}
	http.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) { time.Sleep(time.Second); answer(w) })
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { answer(w) })
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}()
	<-stop.Done()
	_ = server.Shutdown(context.Background())
}

func answer(w http.ResponseWriter) { fmt.Fprintf(w, "pid=%d\n", os.Getpid()) }

func listener() (net.Listener, error) {
	fd := 0
	if os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		fd = 3
	}
	if text := os.Getenv("EINHORN_FD_0"); text != "" {
		var err error
		if fd, err = strconv.Atoi(text); err != nil {
			return nil, err
		}
	}
	if fd == 0 {
		return nil, errors.New("no socket was passed")
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	return net.FileListener(f)
}
