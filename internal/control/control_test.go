package control_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }

// daemon is a Handler whose reload is a function of the test.
type daemon struct {
	reload func(ctx context.Context, drained bool, events func(control.Event)) control.Result
	fds    control.FDs
}

func (d *daemon) Reload(ctx context.Context, drained bool, events func(control.Event)) control.Result {
	return d.reload(ctx, drained, events)
}
func (d *daemon) Reexec(context.Context, func(control.Event)) control.Result {
	return control.Result{OK: true, PID: 7}
}
func (d *daemon) FDs() control.FDs { return d.fds }
func (d *daemon) Status() control.Status {
	return control.Status{Name: "web", PID: 7, Started: time.Unix(1, 0).UTC(), Handoffs: []control.Trace{{ID: 3, Took: control.Duration(1500 * time.Microsecond)}}}
}

// serve runs a server for d and returns its directory; the test ends it and waits.
func serve(t *testing.T, d *daemon) string {
	t.Helper()
	dir := t.TempDir()
	l, err := control.Listen(filepath.Join(dir, control.SocketName), os.Getuid())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- control.Serve(ctx, l, d) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if _, err := os.Lstat(filepath.Join(dir, control.SocketName)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left behind (%v)", err)
		}
	})
	return dir
}

func dial(t *testing.T, dir string) *control.Client {
	t.Helper()
	c, err := control.Dial(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// raw connects without the client.
func raw(t *testing.T, dir string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(dir, control.SocketName)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func TestReload(t *testing.T) {
	want := control.Result{Error: "generation 2 did not get ready", Hint: "look at it", Output: "bad\nworse", Generation: 1, PID: 11, Took: control.Duration(2 * time.Millisecond)}
	steps := []control.Event{
		{V: 1, Type: control.TypeStep, Step: &control.Step{Name: "check", Took: control.Duration(time.Millisecond)}},
		{V: 1, Type: control.TypeStep, Step: &control.Step{Name: "fetch"}},
		{V: 1, Type: control.TypeNote, Text: "hm"},
		{V: 1, Type: control.TypeStep, Step: &control.Step{Name: "ready", Err: "exited"}},
	}
	dir := serve(t, &daemon{reload: func(_ context.Context, drained bool, events func(control.Event)) control.Result {
		if !drained {
			return control.Result{Error: "drained was lost"}
		}
		for _, e := range steps {
			events(e)
		}
		return want
	}})
	var seen []control.Event
	got, err := dial(t, dir).Reload(context.Background(), true, func(e control.Event) { seen = append(seen, e) })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(steps, seen); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestQueries(t *testing.T) {
	d := &daemon{}
	for i := range 10000 {
		d.fds.Sockets = append(d.fds.Sockets, control.Held{Name: fmt.Sprint("socket-", i), Cookie: uint64(i), Holders: []control.Holder{{PID: i, Generation: 2, Comm: "haproxy"}}})
	}
	dir := serve(t, d)
	status, err := dial(t, dir).Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want := d.Status()
	want.V = control.Version
	if diff := cmp.Diff(want, status); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	fds, err := dial(t, dir).FDs(context.Background())
	if err != nil || len(fds.Sockets) != 10000 || fds.V != control.Version {
		t.Errorf("got %d sockets of version %d (%v)", len(fds.Sockets), fds.V, err)
	}
	if r, err := dial(t, dir).Reexec(context.Background(), nil); err != nil || !r.OK || r.PID != 7 {
		t.Errorf("reexec: %+v, %v", r, err)
	}
}

func TestRefused(t *testing.T) {
	dir := serve(t, &daemon{})
	for _, tc := range []struct{ name, line, want string }{
		{"garbage", "\x00\xff garbage\n", "not understood"},
		{"an empty line", "\n", "not understood"},
		{"no version", `{"op":"status"}` + "\n", "version 0"},
		{"another version", `{"v":2,"op":"status"}` + "\n", "version 2"},
		{"another operation", `{"v":1,"op":"explode"}` + "\n", `unknown operation \"explode\"`},
		{"a long line", `{"v":1,"op":"` + strings.Repeat("x", 1<<20) + `"}` + "\n", "longer than 65536"},
		{"half a line", `{"v":1,`, "no request came"},
		{"nothing", "", "no request came"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := raw(t, dir)
			go func() {
				io.WriteString(c, tc.line)
				c.CloseWrite()
			}()
			// A client that still writes when it is refused may lose the answer to ECONNRESET.
			answer, err := io.ReadAll(c)
			if !strings.Contains(string(answer), tc.want) && (len(tc.line) < 1<<16 || err == nil) {
				t.Errorf("answer %s (%v), want one that says %q", answer, err, tc.want)
			}
		})
	}
	if _, err := dial(t, dir).Status(context.Background()); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

func TestNotRunning(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		if _, err := control.Dial(context.Background(), dir); !errors.Is(err, control.ErrNotRunning) {
			t.Errorf("error %v, want ErrNotRunning", err)
		}
		// The second time there is a socket that a killed supervisor left.
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, control.SocketName)})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		defer os.Remove(filepath.Join(dir, control.SocketName))
		if _, err := control.Dial(context.Background(), dir); !errors.Is(err, control.ErrNotRunning) {
			t.Errorf("error %v, want ErrNotRunning", err)
		}
		os.Remove(filepath.Join(dir, control.SocketName))
	}
}

func TestListenOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), control.SocketName)
	first, err := control.Listen(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", info.Mode(), err)
	}
	if second, err := control.Listen(path, 0); err == nil {
		second.Close()
		t.Error("a socket in use was replaced")
	}
	// A killed supervisor leaves its socket.
	os.Rename(path, path+".kept")
	first.Close()
	os.Rename(path+".kept", path)
	second, err := control.Listen(path, 0)
	if err != nil {
		t.Fatalf("a stale socket was not replaced: %v", err)
	}
	second.Close()
}

// TestClientLeaves: the context of a reload ends when its client has gone, and nothing else does.
func TestClientLeaves(t *testing.T) {
	began, ended := make(chan bool), make(chan error, 1)
	dir := serve(t, &daemon{reload: func(ctx context.Context, _ bool, events func(control.Event)) control.Result {
		began <- true
		select {
		case <-ctx.Done():
			ended <- nil
		case <-time.After(20 * time.Second):
			ended <- errors.New("the context did not end")
		}
		events(control.Event{Type: control.TypeNote, Text: "to nobody"})
		return control.Result{OK: true}
	}})
	c := raw(t, dir)
	io.WriteString(c, `{"v":1,"op":"reload"}`+"\n")
	<-began
	c.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := dial(t, dir).Status(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestLateEvents: a handoff whose client has gone still tells of its steps.
func TestLateEvents(t *testing.T) {
	var late func(control.Event)
	dir := serve(t, &daemon{reload: func(_ context.Context, _ bool, events func(control.Event)) control.Result {
		late = events
		return control.Result{OK: true}
	}})
	if r, err := dial(t, dir).Reload(context.Background(), false, nil); err != nil || !r.OK {
		t.Fatalf("%+v, %v", r, err)
	}
	for range 1000 {
		late(control.Event{Type: control.TypeNote})
	}
}

// TestClientOnlyFinishesWriting: `echo … | socat - UNIX:control.sock` closes one direction.
func TestClientOnlyFinishesWriting(t *testing.T) {
	finished := make(chan bool)
	dir := serve(t, &daemon{reload: func(ctx context.Context, _ bool, _ func(control.Event)) control.Result {
		<-finished
		return control.Result{OK: ctx.Err() == nil}
	}})
	c := raw(t, dir)
	io.WriteString(c, `{"v":1,"op":"reload"}`+"\n")
	c.CloseWrite()
	close(finished)
	answer, err := io.ReadAll(c)
	if err != nil || !bytes.Contains(answer, []byte(`"ok":true`)) {
		t.Errorf("answer %s (%v)", answer, err)
	}
}

// TestClientThatNeverReads: neither the events nor the sender of them wait for it.
func TestClientThatNeverReads(t *testing.T) {
	const n = 50000
	sent := make(chan time.Duration, 1)
	text := strings.Repeat("x", 1000)
	dir := serve(t, &daemon{reload: func(_ context.Context, _ bool, events func(control.Event)) control.Result {
		began := time.Now()
		for range n {
			events(control.Event{Type: control.TypeNote, Text: text})
		}
		sent <- time.Since(began)
		return control.Result{OK: true}
	}})
	c := raw(t, dir)
	io.WriteString(c, `{"v":1,"op":"reload"}`+"\n")
	if took := <-sent; took > 2*time.Second {
		t.Errorf("the daemon took %v to send %d events to a client that does not read", took, n)
	}
	// It reads late, and still gets the result and is told about the gap.
	in := bufio.NewScanner(c)
	var last, before control.Event
	for in.Scan() {
		before = last
		last = control.Event{}
		if err := json.Unmarshal(in.Bytes(), &last); err != nil {
			t.Fatal(err)
		}
	}
	if last.Type != control.TypeResult || !strings.Contains(before.Text, "dropped") {
		t.Errorf("the last events are %.100v and %.100v", before, last)
	}
}

func TestTooManyClients(t *testing.T) {
	release, began := make(chan bool), make(chan bool)
	dir := serve(t, &daemon{reload: func(context.Context, bool, func(control.Event)) control.Result {
		began <- true
		<-release
		return control.Result{OK: true}
	}})
	var busy []*net.UnixConn
	for range 32 {
		c := raw(t, dir)
		io.WriteString(c, `{"v":1,"op":"reload"}`+"\n")
		<-began
		busy = append(busy, c)
	}
	if _, err := dial(t, dir).Status(context.Background()); err == nil || !strings.Contains(err.Error(), "too many clients") {
		t.Errorf("error %v, want too many clients", err)
	}
	close(release)
	for _, c := range busy {
		if answer, err := io.ReadAll(c); err != nil || !bytes.Contains(answer, []byte(`"ok":true`)) {
			t.Errorf("answer %s (%v)", answer, err)
		}
	}
}

// TestServerStops: the answer of a call that is under way still goes out; an idle client is let go.
func TestServerStops(t *testing.T) {
	dir := t.TempDir()
	l, err := control.Listen(filepath.Join(dir, control.SocketName), os.Getuid())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	began := make(chan bool)
	go func() {
		served <- control.Serve(ctx, l, &daemon{reload: func(ctx context.Context, _ bool, _ func(control.Event)) control.Result {
			close(began)
			<-ctx.Done()
			return control.Result{Error: "stopping"}
		}})
	}()
	idle := raw(t, dir)
	c := raw(t, dir)
	io.WriteString(c, `{"v":1,"op":"reload"}`+"\n")
	<-began
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if answer, err := io.ReadAll(c); err != nil || !bytes.Contains(answer, []byte(`"error":"stopping"`)) {
		t.Errorf("answer %s (%v)", answer, err)
	}
	if _, err := io.ReadAll(idle); err != nil {
		t.Error(err)
	}
}

// TestLyingSupervisor: what a client makes of a peer that is no supervisor.
func TestLyingSupervisor(t *testing.T) {
	for _, tc := range []struct{ name, answer, want string }{
		{"nothing", "", "before it gave a result"},
		{"steps and no result", `{"v":1,"type":"step","step":{"name":"check","took_us":1}}` + "\n", "before it gave a result"},
		{"half a line", `{"v":1,"type":"resu`, "before it gave a result"},
		{"an empty result", `{"v":1,"type":"result"}` + "\n", "empty result"},
		{"a result of another kind", `{"v":1,"type":"result","status":{}}` + "\n", "empty result"},
		{"another version", `{"v":9,"type":"result"}` + "\n", "version 9"},
		{"garbage", "garbage\n", "not understood"},
		{"a duration out of range", `{"v":1,"type":"result","result":{"took_us":9223372036854775807}}` + "\n", "out of range"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			l, err := net.Listen("unix", filepath.Join(dir, control.SocketName))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				bufio.NewReader(c).ReadBytes('\n')
				io.WriteString(c, tc.answer)
			}()
			if _, err := dial(t, dir).Reload(context.Background(), false, nil); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one that says %q", err, tc.want)
			}
		})
	}
}

func TestClientGivesUp(t *testing.T) {
	release := make(chan bool)
	dir := serve(t, &daemon{reload: func(ctx context.Context, _ bool, _ func(control.Event)) control.Result {
		<-release
		return control.Result{}
	}})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := dial(t, dir).Reload(ctx, false, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the context's", err)
	}
	close(release)
}

func TestRunning(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"web", "api", "empty"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"web", "api"} {
		l, err := control.Listen(filepath.Join(root, name, control.SocketName), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	names, err := control.Running(root)
	if diff := cmp.Diff([]string{"api", "web"}, names); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if names, err := control.Running(filepath.Join(root, "none")); names != nil || err != nil {
		t.Errorf("got %v, %v for a directory that does not exist", names, err)
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, seed := range []string{`{"v":1,"op":"reload","drained":true}`, `{"v":1,"op":"status"}`, `{"v":2}`, `null`, `[]`, "", `{"v":1,"op":"fds","x":[[[]]]}`, "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := control.ParseRequest(line)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := control.ParseRequest(again); err != nil || second != r {
			t.Errorf("%s was read as %+v, and written back is %+v (%v)", line, r, second, err)
		}
	})
}
