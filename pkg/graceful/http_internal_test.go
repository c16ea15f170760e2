package graceful

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestLateRequest is under way when the connections are told goodbye: it is waited for, and what is cut is told.
func TestLateRequest(t *testing.T) {
	for name, cut := range map[string]bool{"answered": false, "cut": true} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			w := &Worker{}
			entered, release := make(chan bool), make(chan bool)
			w.HTTP(l, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				entered <- true
				select {
				case <-release:
				case <-r.Context().Done():
				}
				io.WriteString(rw, "whole")
			})})
			s := w.services[0].(*httpService)
			go s.serve()
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			<-entered
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- s.shutdown(ctx) }()
			select {
			case err := <-ended:
				t.Fatalf("the request was not waited for: %v", err)
			case <-time.After(goodbye + goodbye/2):
			}
			if cut {
				cancel()
				if err := <-ended; err == nil || !strings.Contains(err.Error(), "1 connections") {
					t.Errorf("a request was cut: %v", err)
				}
				return
			}
			close(release)
			answer, err := io.ReadAll(c)
			if err != nil || !strings.HasSuffix(string(answer), "whole") {
				t.Errorf("answer %q, %v", answer, err)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}
