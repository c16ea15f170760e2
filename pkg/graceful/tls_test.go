package graceful_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/pkg/graceful"
)

// TestDrainHTTP2 drains while a request of an HTTP/2 connection is under way and another follows on it.
func TestDrainHTTP2(t *testing.T) {
	template := httptest.NewUnstartedServer(nil)
	template.EnableHTTP2 = true
	template.StartTLS()
	config, client := template.TLS.Clone(), template.Client()
	template.Close()

	w, err := graceful.New(graceful.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := w.Listen("web", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	entered, release := make(chan bool, 1), make(chan bool)
	w.HTTP(l, &http.Server{TLSConfig: config, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			entered <- true
			<-release
		}
		io.WriteString(rw, r.Proto)
	})})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	get := func(path string) string {
		resp, err := client.Get("https://" + l.Addr().String() + path)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err.Error()
		}
		return string(body)
	}
	slow := make(chan string, 1)
	go func() { slow <- get("/slow") }()
	<-entered
	cancel()
	<-w.Draining()
	if got := get("/"); got != "HTTP/2.0" {
		t.Errorf("a request on the connection that drains: %s", got)
	}
	close(release)
	if got := <-slow; got != "HTTP/2.0" {
		t.Errorf("the request under way: %s", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	client.CloseIdleConnections()
}

// TestSecondSignalEndsTheDrain does not wait for a connection that sends nothing.
func TestSecondSignalEndsTheDrain(t *testing.T) {
	w, err := graceful.New(graceful.Options{Grace: time.Hour, Timeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	l, err := w.Listen("web", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	handled := make(chan bool, 1)
	w.Conns(l, func(_ context.Context, c net.Conn) {
		handled <- true
		_, _ = c.Read(make([]byte, 1))
	})
	ended := make(chan error, 1)
	go func() { ended <- w.Run(context.Background()) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-handled
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} { // SIGTERM again would only repeat the first
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		<-w.Draining()
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "1 connections") {
		t.Errorf("got %v", err)
	}
}
