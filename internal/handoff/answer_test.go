package handoff_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/getsocks"
)

// tellCommand makes the test binary a worker that binds a Unix socket of its own and tells it by _getsocks, at the same
// path as every other generation, which it takes when the second file is gone: tell PATH FILE.
const tellCommand = "tell"

func tell(path, while string) error {
	own, err := sys.OpenListener(sys.ListenSpec{Network: "unix", Path: fmt.Sprintf("%s.own.%d", path, os.Getpid())})
	if err != nil {
		return err
	}
	for ; ; time.Sleep(time.Millisecond) {
		if _, err := os.Lstat(while); err != nil {
			break
		}
	}
	server, err := getsocks.Listen(path)
	if err != nil {
		return err
	}
	return server.Serve(context.Background(), func() ([]getsocks.Socket, func()) { return []getsocks.Socket{{FD: own}}, func() {} })
}

// While the path of the _getsocks socket is still the old worker's, what it tells is not taken for the new one's.
func TestOldWorkerAnswersForTheNew(t *testing.T) {
	for _, comes := range []bool{true, false} {
		t.Run(fmt.Sprintf("the new one comes: %v", comes), func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			path, while := h.dir+"/tell", h.dir+"/while"
			// It is ready before it can be asked.
			text := fmt.Sprintf("[worker]\ncommand = [%q, %q, %q, %q]\n[ready]\nwhen = [\"delay\"]\ndelay = \"1ms\"\n[handoff]\ngetsocks = %[3]q\n", os.Args[0], tellCommand, path, while)
			if err := os.WriteFile(h.configFile(), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			first := &handoff.Handoff{Host: h, Kind: handoff.Start, OnStep: func(s handoff.Timed) {
				for end := time.Now().Add(limit); s.Name == "ready" && time.Now().Before(end); time.Sleep(time.Millisecond) {
					if _, err := os.Lstat(path); err == nil {
						return
					}
				}
			}}
			var err error
			if first.Config, err = h.LoadConfig(); err != nil {
				t.Fatal(err)
			}
			if err := first.Run(context.Background()); err != nil {
				t.Fatal(err)
			}
			own := func() string { return fmt.Sprintf("%s.own.%d", path, h.serving.PID()) }
			old := own()
			if err := os.WriteFile(while, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			next := &handoff.Handoff{Host: h, Kind: handoff.Reload, Old: h.serving, OnStep: func(s handoff.Timed) {
				if s.Name == "ready" && comes {
					os.Remove(while)
				}
			}}
			err = next.Run(context.Background())
			var addresses []string
			for _, s := range h.held.Ordered(nil) {
				addresses = append(addresses, s.Info.Address)
			}
			want := old
			if comes {
				want = own()
			}
			if (err == nil) != comes || !slices.Equal(addresses, []string{want}) {
				t.Errorf("%v; held: %q, want %q", err, addresses, want)
			}
			if words := fmt.Sprintf("another generation answers there: process %d, which is not of generation 2", h.gens[0].PID()); !comes && (err == nil || !strings.Contains(err.Error(), words)) {
				t.Errorf("got %v, want %q", err, words)
			}
		})
	}
}

// What the kernel says of who listens is of the process that a generation begins with, also where HAProxy forks.
func TestHAProxyAnswers(t *testing.T) {
	const program = "/usr/sbin/haproxy"
	if _, err := os.Stat(program); err != nil {
		t.Skip("haproxy is not installed")
	}
	for _, mode := range []string{`"-db"`, `"-W", "-db"`} {
		h := newHost(t)
		admin := h.dir + "/admin.sock"
		cfg := fmt.Sprintf("global\n  stats socket %s level admin expose-fd listeners\ndefaults\n  mode http\n  timeout client 5s\n  timeout server 5s\n  timeout connect 5s\nfrontend f\n  bind %s:8080\n", admin, h.addr)
		text := fmt.Sprintf("[worker]\ncommand = [%q, %s, \"-f\", \"%s/cfg\", \"-x\", \"sockpair@${getsocks_fd}\"]\n[ready]\nwhen = [\"haproxy\"]\nsocket = %q\n[handoff]\ngetsocks = %[4]q\n[drain]\nsignal = \"SIGUSR1\"\n", program, mode, h.dir, admin)
		for file, text := range map[string]string{h.dir + "/cfg": cfg, h.configFile(): text} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		h.must()
		before := h.picture().Held
		if ho := h.must(); ho.Trace.To != 2 || len(before) != 1 {
			t.Errorf("%s: %+v", mode, ho.Trace)
		}
		if after := h.picture().Held; len(after) != 1 || fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("%s: held %v, before %v", mode, after, before)
		}
		h.serving.Process.Signal(syscall.SIGTERM)
	}
}
