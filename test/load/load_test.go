package load_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/leaktest"
	"github.com/8265a91a/supervisor/test/load"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }

// serve answers each connection with what answer does to it.
func serve(t *testing.T, answer func(net.Conn)) load.Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			answer(conn)
			conn.Close()
		}
	}()
	return load.Target{Address: l.Addr().String()}
}

func say(conn net.Conn, text string) {
	_, _ = conn.Read(make([]byte, 1024))
	_, _ = conn.Write([]byte(text))
}

func TestFailuresAreToldApart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := load.Target{Address: l.Addr().String()}
	l.Close()

	tests := []struct {
		name   string
		target load.Target
		want   load.Kind
	}{
		{"ok", serve(t, func(c net.Conn) { say(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npid=12") }), load.OK},
		{"refused", refused, load.Refused},
		{"no such unix socket", load.Target{Network: "unix", Address: filepath.Join(t.TempDir(), "none")}, load.Refused},
		{"reset", serve(t, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1))
			_ = c.(*net.TCPConn).SetLinger(0)
		}), load.Reset},
		{"cut in the head", serve(t, func(c net.Conn) { say(c, "HTTP/1.1 200 OK\r\n") }), load.Cut},
		{"cut in the body", serve(t, func(c net.Conn) { say(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npid") }), load.Cut},
		{"timeout", serve(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1024)); _, _ = c.Read(make([]byte, 1)) }), load.Timeout},
		{"wrong", serve(t, func(c net.Conn) { say(c, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n") }), load.Wrong},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			result := load.Start(context.Background(), load.Options{Target: test.target, Requests: 1,
				Clients: map[load.Class]int{load.New: 1}, Timeout: 300 * time.Millisecond}).Wait()
			if got := result.Classes[load.New].Kinds[test.want]; got != 1 {
				t.Errorf("want one %s, got %s", test.want, result)
			}
			if failed := result.Failures() != 0; failed != (test.want != load.OK) {
				t.Errorf("failures: %s", result)
			}
		})
	}
}

func TestKeptConnections(t *testing.T) {
	// Answers twice on each connection, then closes without a word.
	target := serve(t, func(c net.Conn) {
		for range 2 {
			say(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\npid=7")
		}
	})
	result := load.Start(context.Background(), load.Options{Target: target, Requests: 6, Interval: 20 * time.Millisecond,
		Clients: map[load.Class]int{load.Keep: 1}}).Wait()
	if result.IdleClosed() != 2 || result.Failures() != 0 || result.Workers()["7"] != 4 {
		t.Errorf("want 4 answers of worker 7 and 2 idle closes: %s", result)
	}
}

func TestUnixAndWorkers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Worker", "me")
		fmt.Fprintln(w, r.URL.Path)
	})}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	result := load.Start(context.Background(), load.Options{Target: load.Target{Network: "unix", Address: path}, Requests: 40,
		Late: time.Millisecond, Clients: map[load.Class]int{load.New: 2, load.Late: 2}}).Wait()
	if result.Failures() != 0 || result.Workers()["me"] != 40 {
		t.Errorf("want 40 answers of me: %s", result)
	}
}

func TestHistogram(t *testing.T) {
	var h load.Histogram
	for i := range 1000 {
		h.Add(time.Duration(i+1) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.99: 990 * time.Millisecond, 0.999: time.Second} {
		if got := h.Quantile(q); got < want || float64(got) > 1.07*float64(want) {
			t.Errorf("quantile %v is %v, want %v or at most 7 %% more", q, got, want)
		}
	}
	if h.Max() != time.Second {
		t.Errorf("max %v", h.Max())
	}
}
