package getsocks_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/getsocks"
)

// TestFullQueue asks a process that does not accept at the moment.
func TestFullQueue(t *testing.T) {
	for name, ask := range map[string]func(ctx context.Context, path string) error{
		"fetch": func(ctx context.Context, path string) error { _, err := getsocks.Fetch(ctx, path); return err },
		"pid":   func(ctx context.Context, path string) error { _, err := getsocks.PID(ctx, path); return err },
	} {
		t.Run(name, func(t *testing.T) {
			path, l := fullQueue(t)
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			if err := ask(ctx, path); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "its queue is full") {
				t.Errorf("nobody accepts: %v", err)
			}
			// The answer shows that it was connected.
			ended := make(chan error, 1)
			go func() { ended <- ask(patient(t), path) }()
			for answered := false; !answered; {
				c, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				c.SetDeadline(time.Now().Add(20 * time.Second))
				n, _ := c.Read(make([]byte, 100))
				if answered = n > 0; answered {
					c.Write([]byte{0, 0, 0, 0})
				}
				c.Close()
			}
			if err := <-ended; err != nil && name == "fetch" || err != nil && !strings.Contains(err.Error(), "show info") {
				t.Error(err)
			}
		})
	}
}

// fullQueue returns a listener whose queue is full of connections whose clients have gone.
func fullQueue(t *testing.T) (path string, l net.Listener) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "unix", Path: path, Backlog: 1})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	f := fd.File("listener")
	defer f.Close()
	if l, err = net.FileListener(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := l.(*net.UnixListener).SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return path, l
}
