package control_test

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/control"
)

// FuzzAnswer lets a client ask a supervisor that answers anything and hangs up.
func FuzzAnswer(f *testing.F) {
	for _, answer := range []string{
		"", "\n", "{}\n", "null\n", `{"v":1,"type":"result"}` + "\n", `{"v":2,"type":"result","result":{"ok":true}}` + "\n",
		`{"v":1,"type":"step","step":{"name":"check","took_us":12}}` + "\n" + `{"v":1,"type":"result","result":{"ok":true,"took_us":3}}` + "\n",
		`{"v":1,"type":"step"}` + "\n" + `{"v":1,"type":"note","text":"x"}` + "\n" + `{"v":1,"type":"error","text":"no"}` + "\n",
		`{"v":1,"type":"result","result":{"ok":false,"error":"x","failed":{"pid":1,"since":"2026-01-01T00:00:00Z"},"took_us":99999999999999999}}` + "\n",
		`{"v":1,"type":"status","status":{}}` + "\n", `{"v":1,"type":"fds","fds":{}}` + "\n", `{"v":1,"type":"result","result":{"ok":true}}`,
	} {
		for op := range byte(3) {
			f.Add(op, answer)
		}
	}
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, control.SocketName))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	f.Fuzz(func(t *testing.T, op byte, answer string) {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		client, err := control.Dial(ctx, dir)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			defer server.Close()
			_, _ = server.Read(make([]byte, 4096))
			_, _ = server.Write([]byte(answer))
		}()
		events := 0
		content, err := ask(ctx, client, op, func(e control.Event) {
			events++
			if e.V != control.Version || e.Type == control.TypeResult || e.Type == control.TypeError {
				t.Errorf("shown as progress: %+v", e)
			}
		})
		<-answered
		if ctx.Err() != nil {
			t.Error("waited for more from a supervisor that had hung up")
		}
		if lines := strings.Count(answer, "\n"); events > lines {
			t.Errorf("%d events in %d lines", events, lines)
		}
		if err != nil {
			return
		}
		// What was believed is a whole line of the answer, and means the same when it is sent on.
		if !strings.Contains(answer, "\n") {
			t.Errorf("a line without its end was believed: %+v", content)
		}
		roundTrip(t, content)
	})
}

// ask makes one request, of the kind op says, and returns a pointer to what came of it.
func ask(ctx context.Context, client *control.Client, op byte, onEvent func(control.Event)) (any, error) {
	switch op % 3 {
	case 0:
		r, err := client.Reload(ctx, false, onEvent)
		return &r, err
	case 1:
		s, err := client.Status(ctx)
		return &s, err
	default:
		fds, err := client.FDs(ctx)
		return &fds, err
	}
}

func roundTrip(t *testing.T, content any) {
	t.Helper()
	text, err := json.Marshal(content)
	if err != nil {
		t.Fatalf("%+v cannot be sent on: %v", content, err)
	}
	var again any
	switch content.(type) {
	case *control.Result:
		again = &control.Result{}
	case *control.Status:
		again = &control.Status{}
	case *control.FDs:
		again = &control.FDs{}
	}
	if err := json.Unmarshal(text, again); err != nil {
		t.Fatalf("%s is not understood: %v", text, err)
	}
	if same, err := json.Marshal(again); err != nil || string(same) != string(text) {
		t.Errorf("%s became %s (%v)", text, same, err)
	}
}
