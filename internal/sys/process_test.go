package sys_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

// child starts a shell script whose standard input is the returned pipe, and which nobody but the test reaps.
func child(t *testing.T, script string) (pid int, stdin *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	t.Cleanup(func() { w.Close() })
	pid, err = syscall.ForkExec("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{Files: []uintptr{r.Fd(), 1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	return pid, w
}

// await blocks until the process behind pidfd has ended.
func await(t *testing.T, pidfd *sys.FD) {
	t.Helper()
	dup, err := pidfd.Dup()
	if err != nil {
		t.Fatal(err)
	}
	f := dup.File("pidfd")
	defer f.Close()
	if err := f.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := sys.WaitExit(f); err != nil {
		t.Fatal(err)
	}
}

func TestReapChild(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		signal       syscall.Signal
		want         sys.Exit
	}{
		{"exit 0", "read x; exit 0", 0, sys.Exit{Known: true}},
		{"exit 3", "read x; exit 3", 0, sys.Exit{Known: true, Code: 3}},
		{"killed", "read x", syscall.SIGKILL, sys.Exit{Known: true, Signal: syscall.SIGKILL}},
		{"terminated", "read x", syscall.SIGTERM, sys.Exit{Known: true, Signal: syscall.SIGTERM}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pid, stdin := child(t, tc.script)
			pidfd, err := sys.PidfdOpen(pid)
			must(t, pidfd, err)
			if got, err := sys.PidfdPID(pidfd.Num()); got != pid || err != nil {
				t.Errorf("pid is %d (%v), want %d", got, err, pid)
			}
			if _, err := sys.Reap(pidfd.Num()); !errors.Is(err, sys.ErrNotExited) {
				t.Errorf("a running process: %v", err)
			}
			if tc.signal != 0 {
				if err := sys.PidfdSignal(pidfd.Num(), tc.signal); err != nil {
					t.Fatal(err)
				}
			}
			stdin.Close()
			await(t, pidfd)
			if got, err := sys.Reap(pidfd.Num()); got != tc.want || err != nil {
				t.Errorf("ended as %+v (%v), want %+v", got, err, tc.want)
			}
			if _, err := sys.PidfdPID(pidfd.Num()); !errors.Is(err, os.ErrProcessDone) {
				t.Errorf("the pid of a reaped process: %v", err)
			}
			if err := sys.PidfdSignal(pidfd.Num(), syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
				t.Errorf("signalling a reaped process: %v", err)
			}
			// Linux 6.15 still knows.
			if got, err := sys.Reap(pidfd.Num()); err != nil || got.Known && got != tc.want {
				t.Errorf("ended, asked again, as %+v (%v), want %+v", got, err, tc.want)
			}
		})
	}
}

// grandchild starts a process that is the child of another, which runs rest after it.
func grandchild(t *testing.T, rest string) *sys.FD {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "(exec sleep 1000) & echo $!; "+rest)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := sys.PidfdOpen(pid)
	must(t, pidfd, err)
	t.Cleanup(func() { sys.PidfdSignal(pidfd.Num(), syscall.SIGKILL) })
	return pidfd
}

// TestReapForeign: an adopted worker is not our child. Its end is known from the kernel once its parent has reaped it
// (6.15), and from /proc until then.
func TestReapForeign(t *testing.T) {
	want := sys.Exit{Known: true, Signal: syscall.SIGTERM}
	t.Run("not reaped", func(t *testing.T) {
		pidfd := grandchild(t, "exec sleep 1001")
		if _, err := sys.Reap(pidfd.Num()); !errors.Is(err, sys.ErrNotExited) {
			t.Errorf("a running process: %v", err)
		}
		if err := sys.PidfdSignal(pidfd.Num(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		await(t, pidfd)
		for range 2 {
			if got, err := sys.Reap(pidfd.Num()); got != want || err != nil {
				t.Errorf("ended as %+v (%v), want %+v", got, err, want)
			}
		}
	})
	t.Run("reaped", func(t *testing.T) {
		pidfd := grandchild(t, "wait; exec sleep 1001")
		if err := sys.PidfdSignal(pidfd.Num(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		await(t, pidfd)
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			if _, err := sys.PidfdPID(pidfd.Num()); errors.Is(err, os.ErrProcessDone) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the shell does not reap")
			}
		}
		got, err := sys.Reap(pidfd.Num())
		if err != nil || got.Known && got != want {
			t.Errorf("ended as %+v (%v), want %+v", got, err, want)
		}
		if major, minor := kernel(t); !got.Known && (major > 6 || major == 6 && minor >= 15) {
			t.Errorf("Linux %d.%d did not tell how the process ended", major, minor)
		}
	})
}

func kernel(t *testing.T) (major, minor int) {
	t.Helper()
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(release), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major, minor
}

func TestWaitExitEndsWithItsFile(t *testing.T) {
	pidfd, err := sys.PidfdOpen(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	f := pidfd.File("pidfd")
	ended := make(chan error, 1)
	go func() { ended <- sys.WaitExit(f) }()
	f.Close()
	if err := <-ended; err == nil {
		t.Error("a process that runs has ended")
	}
}

func TestPidfdOfNobody(t *testing.T) {
	if _, err := sys.PidfdOpen(1 << 22); !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a pid beyond the largest: %v", err)
	}
	r, w, err := sys.Pipe()
	must(t, r, err)
	must(t, w, err)
	if _, err := sys.PidfdPID(r.Num()); err == nil || errors.Is(err, os.ErrProcessDone) {
		t.Errorf("the pid behind a pipe: %v", err)
	}
	if _, err := sys.Reap(r.Num()); err == nil {
		t.Error("a pipe was reaped")
	}
	if err := sys.PidfdSignal(r.Num(), syscall.SIGTERM); err == nil {
		t.Error("a pipe was signalled")
	}
}

func TestPidfdGetfd(t *testing.T) {
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	must(t, fd, err)
	self, err := sys.PidfdOpen(os.Getpid())
	must(t, self, err)
	got, err := sys.PidfdGetfd(self.Num(), fd.Num())
	must(t, got, err)
	if !same(t, fd, got) {
		t.Error("another open file description")
	}
	if on, err := sys.CloseOnExec(got.Num()); !on || err != nil {
		t.Errorf("not close-on-exec (%v)", err)
	}
	if _, err := sys.PidfdGetfd(self.Num(), 1<<20); !errors.Is(err, syscall.EBADF) {
		t.Errorf("a descriptor that is not open: %v", err)
	}
}

func TestMonotonicNow(t *testing.T) {
	first := sys.MonotonicNow()
	if second := sys.MonotonicNow(); first <= 0 || second < first {
		t.Errorf("%v, then %v", first, second)
	}
}

// TestInNetns opens the same port in another network namespace, and comes back.
func TestInNetns(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	cmd := exec.Command("unshare", "--net", "sh", "-c", "echo ready; exec sleep 1000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Skipf("unshare does not work here: %q, %v", line, err)
	}
	ns, err := sys.OpenNetns(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
	must(t, ns, err)
	home, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "0.0.0.0"})
	must(t, home, err)
	info, err := sys.Inspect(home.Num())
	if err != nil {
		t.Fatal(err)
	}
	spec := sys.ListenSpec{Network: "tcp", Host: "0.0.0.0", Port: uint32(info.Port)}
	err = sys.InNetns(ns, func() error {
		away, err := sys.OpenListener(spec)
		if err == nil {
			must(t, away, nil)
		}
		return err
	})
	if err != nil {
		t.Errorf("the port is taken in the other namespace too: %v", err)
	}
	if _, err := sys.OpenListener(spec); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("back home the port is free: %v", err)
	}
	failed := errors.New("failed")
	if err := sys.InNetns(ns, func() error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v, want the call's error", err)
	}
	if _, err := sys.OpenNetns("/proc/self/nosuch"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestSubreaper runs itself again, because a process cannot be made to forget that it is one.
func TestSubreaper(t *testing.T) {
	if os.Getenv("SYS_TEST_SUBREAPER") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestSubreaper$", "-test.v", "-test.timeout=20s")
		cmd.Env = append(os.Environ(), "SYS_TEST_SUBREAPER=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := sys.Subreaper(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("/bin/sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	orphan, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := sys.PidfdOpen(orphan)
	must(t, pidfd, err)
	if pid, err := sys.PeekExited(); pid != 0 || err != nil {
		t.Errorf("child %d waits to be reaped (%v)", pid, err)
	}
	if err := sys.PidfdSignal(pidfd.Num(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, pidfd)
	if pid, err := sys.PeekExited(); pid != orphan || err != nil {
		t.Errorf("child %d waits to be reaped (%v), want %d", pid, err, orphan)
	}
	if err := sys.ReapChild(orphan); err != nil {
		t.Error(err)
	}
	if _, err := sys.PidfdPID(pidfd.Num()); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("the orphan is still there: %v", err)
	}
}
