package probe_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/probe"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/worker"
)

func TestListening(t *testing.T) {
	for _, tt := range []struct {
		how, network string
		sockets      int
	}{
		{"accept", "tcp", 1}, {"accept", "unix", 1}, {"recvfrom", "udp", 1}, {"read", "unixgram", 1},
		{"poll", "tcp", 3}, {"poll", "udp", 70}, {"select", "tcp", 3}, {"select", "tcp", 70}, {"epoll", "tcp", 3}, {"epoll", "udp", 2},
	} {
		t.Run(fmt.Sprintf("%s %s %d", tt.how, tt.network, tt.sockets), func(t *testing.T) {
			fds, inodes := listen(t, tt.network, tt.sockets)
			s := start(t, tt.how, fds)
			found, err := probe.Listening([]int{s.PID()}, inodes)
			if err != nil || len(found) != 0 {
				t.Errorf("before it waits: %v, %v", found, err)
			}
			s.begin(t)
			for inode, pid := range eventually(t, func() []int { return []int{s.PID()} }, inodes) {
				if pid != s.PID() || !slices.Contains(inodes, inode) {
					t.Errorf("found %d in %d", inode, pid)
				}
			}
		})
	}
}

// A worker that was stopped and goes on, or was frozen, is in restart_syscall(2).
func TestRestartedPoll(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skipf("%s has no poll(2) that is restarted so", runtime.GOARCH)
	}
	for how, call := range map[string]string{"old-poll": "^7 ", "futex": "^202 0x[0-9a-f]* 0x80 0x3 "} {
		fds, inodes := listen(t, "tcp", 1)
		s := start(t, how, fds)
		s.begin(t)
		inCall := func(call string) {
			t.Helper()
			for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
				calls, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", s.PID()))
				if err != nil {
					t.Fatal(err)
				}
				for _, file := range calls {
					text, err := os.ReadFile(file)
					if err == nil && regexp.MustCompile(call).Match(text) {
						return
					}
				}
				if time.Now().After(deadline) {
					t.Fatalf("%s: no thread is in %q", how, call)
				}
			}
		}
		state := func(want string) {
			t.Helper()
			for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
				status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(status), "\nState:\t"+want) {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("%s: %s", how, status)
				}
			}
		}
		inCall(call)
		s.Signal(syscall.SIGSTOP)
		state("T")
		s.Signal(syscall.SIGCONT)
		inCall("^219 ")
		if how == "old-poll" {
			eventually(t, func() []int { return []int{s.PID()} }, inodes)
		} else if found, err := probe.Listening([]int{s.PID()}, inodes); err != nil || len(found) > 0 {
			t.Errorf("%s: found %v, %v", how, found, err)
		}
	}
}

func TestNotListening(t *testing.T) {
	fds, inodes := listen(t, "tcp", 2)
	writer := start(t, "write-poll", fds)
	writer.begin(t)
	one := start(t, "accept", fds)
	one.begin(t)
	found := eventually(t, func() []int { return []int{writer.PID(), one.PID()} }, inodes[:1])
	if diff := cmp.Diff(map[uint64]int{inodes[0]: one.PID()}, found); diff != "" {
		t.Error(diff)
	}
	found, err := probe.Listening([]int{writer.PID(), one.PID()}, inodes)
	if diff := cmp.Diff(map[uint64]int{inodes[0]: one.PID()}, found); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestGone(t *testing.T) {
	s := start(t, "accept", nil)
	s.Signal(9)
	<-s.Done()
	found, err := probe.Listening([]int{s.PID()}, []uint64{1})
	if err != nil || len(found) != 0 {
		t.Errorf("of a process that ended: %v, %v", found, err)
	}
	list, err := probe.ListeningSockets([]int{s.PID()})
	if err != nil || len(list) != 0 {
		t.Errorf("of a process that ended: %v, %v", list, err)
	}
}

func TestNotAllowed(t *testing.T) {
	if os.Getuid() == 0 { // root may look into every process
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestNotAllowed$", "-test.v")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestNotAllowed") {
			t.Errorf("as nobody: %v\n%s", err, out)
		}
		return
	}
	if _, err := probe.Listening([]int{1}, []uint64{1}); !errors.Is(err, os.ErrPermission) || !strings.HasPrefix(err.Error(), "look into process 1: ") {
		t.Error(err)
	}
	if list, err := probe.ListeningSockets([]int{1}); !errors.Is(err, os.ErrPermission) {
		t.Errorf("%v, %v", list, err)
	}
}

func TestHolders(t *testing.T) {
	fds, inodes := listen(t, "tcp", 2)
	a, b := start(t, "accept", fds), start(t, "accept", append(fds[:1:1], fds[0]))
	got, err := probe.Holders(append(inodes, 1))
	if err != nil {
		t.Fatal(err)
	}
	pids := func(list ...int) []int { slices.Sort(list); return list }
	want := map[uint64][]int{
		inodes[0]: pids(os.Getpid(), a.PID(), b.PID()),
		inodes[1]: pids(os.Getpid(), a.PID()),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestListeningSockets(t *testing.T) {
	tcp, _ := listen(t, "tcp", 1)
	udp, _ := listen(t, "udp", 1)
	unix, _ := listen(t, "unix", 1)
	a, b, err := sys.Socketpair(1)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	fds := []*sys.FD{tcp[0], a, udp[0], unix[0], b}
	s, other := start(t, "accept", fds), start(t, "accept", fds)
	got, err := probe.ListeningSockets([]int{s.PID(), other.PID()})
	if err != nil {
		t.Fatal(err)
	}
	var want []probe.Found
	for _, fd := range []int{3, 5, 6} {
		inode, err := sys.Inode(fds[fd-3].Num())
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, probe.Found{PID: s.PID(), FD: fd, Inode: inode})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	taken, err := probe.TakeListeners([]int{s.PID(), other.PID()}, func(inode uint64) bool { return inode != want[1].Inode })
	if err != nil {
		t.Fatal(err)
	}
	for i := range taken {
		if i == 1 && taken[i].Dup == nil {
			continue
		}
		if inode, err := sys.Inode(taken[i].Dup.Num()); err != nil || inode != taken[i].Inode {
			t.Errorf("the duplicate of %d is %d: %v", taken[i].Inode, inode, err)
		}
		taken[i].Dup.Close()
		taken[i].Dup = nil
	}
	if diff := cmp.Diff(want, taken); diff != "" {
		t.Error(diff)
	}
}

// program runs a real server on the given socket at descriptor 3 and waits until it is seen to listen.
func program(t *testing.T, argv, env []string, fd *sys.FD, inode uint64) {
	t.Helper()
	marker := "SUPERVISOR_GENERATION=" + t.Name() + "/1"
	p, err := worker.Start(worker.Command{Argv: argv, Env: append(env, marker, "PATH="+os.Getenv("PATH")), Files: []int{-1, 2, 2, fd.Num()}})
	if err != nil {
		t.Fatal(err)
	}
	tree := worker.NewTree(p, marker)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		tree.Signal(9)
		if err := tree.Wait(ctx); err != nil {
			t.Error(err)
		}
		<-p.Done()
		p.Release()
	})
	eventually(t, func() []int {
		select {
		case <-p.Done():
			t.Fatal("the program ended: ", worker.ExitString(p.Exit()))
		default:
		}
		pids, err := tree.PIDs()
		if err != nil {
			t.Fatal(err)
		}
		return pids
	}, []uint64{inode})
}

func lookPath(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip(err)
	}
	return path
}

func TestNginx(t *testing.T) {
	path := lookPath(t, "nginx")
	fds, inodes := listen(t, "tcp", 1)
	info, err := sys.Inspect(fds[0].Num())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf("daemon off;\nworker_processes 2;\npid %s/pid;\nerror_log stderr;\nevents { worker_connections 64; }\n"+
		"http { access_log off; server { listen %s; return 200 ok; } }\n", dir, info.Address)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	program(t, []string{path, "-c", conf}, []string{"NGINX=3;"}, fds[0], inodes[0])
}

func TestPython(t *testing.T) {
	path := lookPath(t, "python3")
	const adopt = "import socket\ns = socket.socket(fileno=3)\n"
	for name, script := range map[string]string{
		"accept":      adopt + "s.accept()",
		"http.server": adopt + "import http.server\nh = http.server.HTTPServer(('', 0), http.server.BaseHTTPRequestHandler, False)\nh.socket = s\nh.serve_forever()",
		"select":      adopt + "import select\nselect.select([s], [], [])",
		"thread":      adopt + "import threading, time\nthreading.Thread(target=s.accept).start()\ntime.sleep(100)",
	} {
		t.Run(strings.ReplaceAll(name, ".", "_"), func(t *testing.T) {
			fds, inodes := listen(t, "tcp", 1)
			program(t, []string{path, "-c", script}, nil, fds[0], inodes[0])
		})
	}
}

func BenchmarkListening(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			fds, inodes := listen(b, "tcp", n)
			s := start(b, "epoll", fds)
			s.begin(b)
			pids := []int{s.PID()}
			eventually(b, func() []int { return pids }, inodes)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := probe.Listening(pids, inodes); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
