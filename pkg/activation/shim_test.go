package activation_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/intercept"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/activation"
)

func TestShimSetsWhatOnlyTheChildKnows(t *testing.T) {
	l := plan(t, []string{"systemd"}, listener(t))
	argv := activation.ShimArgs(self(t), l, []string{self(t), "--pid=${pid}", "${pid}${pid}", "$pid"})
	env := append(l.Env, role+"=reference", "MINE=<${pid}>", "LISTEN_PID=1", "LISTEN_PIDFDID=1")
	r := startReport(t, argv, env, l.Files[3:])
	pid := fmt.Sprint(r.PID)
	if diff := cmp.Diff([]string{self(t), "--pid=" + pid, pid + pid, "$pid"}, r.Args); diff != "" {
		t.Error(diff)
	}
	slices.Sort(r.Env)
	// The reference unsets nothing before the report is made.
	want := []string{role + "=reference", "LISTEN_FDNAMES=socket-0", "LISTEN_FDS=1", "LISTEN_PID=" + pid, "MINE=<" + pid + ">"}
	slices.Sort(want)
	if diff := cmp.Diff(want, r.Env); diff != "" {
		t.Error(diff)
	}
}

func TestReferenceImplementationTakesTheSockets(t *testing.T) {
	a, b := listener(t), listener(t)
	l := plan(t, []string{"systemd"}, a, b)
	argv := activation.ShimArgs(self(t), l, []string{self(t)})
	r := startReport(t, argv, append(l.Env, role+"=reference"), l.Files[3:])
	want := []passedFD{{Name: "socket-0", Address: address(a.Num())}, {Name: "socket-1", Address: address(b.Num())}}
	slices.SortFunc(r.Passed, func(a, b passedFD) int { return strings.Compare(a.Name, b.Name) })
	if diff := cmp.Diff(want, r.Passed); diff != "" {
		t.Error(diff)
	}
}

func TestLibsystemdTakesTheSockets(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	const script = `
import ctypes, sys
try: lib = ctypes.CDLL("libsystemd.so.0")
except OSError: sys.exit(77)
names = ctypes.POINTER(ctypes.c_char_p)()
n = lib.sd_listen_fds_with_names(0, ctypes.byref(names))
print(n, *[names[i].decode() for i in range(max(n, 0))])`
	l := plan(t, []string{"systemd"}, listener(t), listener(t))
	argv := activation.ShimArgs(self(t), l, []string{python, "-c", script})
	stdout, stderr, status := start(t, argv, append(l.Env, "PATH=/usr/bin:/bin"), l.Files[3:])
	if status.ExitStatus() == 77 {
		t.Skip("libsystemd is not installed")
	}
	if want := "2 socket-0 socket-1\n"; stdout != want {
		t.Errorf("libsystemd took %q, want %q (%s)", stdout, want, stderr)
	}
}

func TestShimChangesNoFlags(t *testing.T) {
	for _, nonblock := range []bool{false, true} {
		fd := listener(t)
		if err := sys.SetNonblock(fd.Num(), nonblock); err != nil {
			t.Fatal(err)
		}
		l := plan(t, []string{"systemd"}, fd)
		startReport(t, activation.ShimArgs(self(t), l, []string{self(t)}), append(l.Env, role+"=take"), l.Files[3:])
		if got, err := sys.Nonblock(fd.Num()); err != nil || got != nonblock {
			t.Errorf("O_NONBLOCK is %v, was %v (%v)", got, nonblock, err)
		}
	}
}

func TestShimErrors(t *testing.T) {
	notExecutable := filepath.Join(t.TempDir(), "gone")
	for _, tt := range []struct {
		name string
		args []string
		want string
		code int
	}{
		{"not found", []string{"--", notExecutable}, "start " + notExecutable + ": no such file or directory", 127},
		{"not executable", []string{"--", "/etc/passwd"}, "start /etc/passwd: permission denied", 126},
		{"nothing searched", []string{"--", "sh"}, "start sh: no such file", 127},
		{"no command", []string{"--"}, "no command after --", 126},
		{"no separator", nil, "no -- before", 126},
		{"unknown flag", []string{"--bnd", "3", "--", "/bin/true"}, `unknown argument "--bnd"`, 126},
		{"bad descriptor", []string{"--bind", "x", "--", "/bin/true"}, `--bind "x" is not a descriptor`, 126},
		{"closed descriptor", []string{"--bind", "77", "--", "/bin/true"}, "bad file descriptor", 126},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, stderr, status := start(t, append([]string{self(t), activation.ShimCommand}, tt.args...), nil, nil)
			if !strings.Contains(stderr, tt.want) || status.ExitStatus() != tt.code {
				t.Errorf("exit %d, %q; want %d, %q", status.ExitStatus(), stderr, tt.code, tt.want)
			}
		})
	}
}

// The child binds an address that is taken, and gets the socket that takes it.
func TestShimIntercepts(t *testing.T) {
	fd := listener(t)
	ours, theirs, err := sys.Socketpair(syscall.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	l, err := activation.Plan([]string{"bind"}, nil, [3]int{0, 1, 2}, activation.Options{Bind: theirs})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		notify, err := intercept.Receive(ctx, ours)
		if err == nil {
			err = intercept.Serve(ctx, notify, func(intercept.Request) (*sys.FD, error) { return fd.Dup() }, nil)
			notify.Close()
		}
		served <- err
	}()
	argv := activation.ShimArgs(self(t), l, []string{self(t), address(fd.Num())})
	stdout, stderr, status := start(t, argv, []string{role + "=listen"}, l.Files[3:])
	if status.ExitStatus() != 0 {
		t.Errorf("child ended with %d: %s%s", status.ExitStatus(), stdout, stderr)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func BenchmarkShim(b *testing.B) {
	path, err := exec.LookPath("true")
	if err != nil {
		b.Skip(err)
	}
	executable, err := filepath.EvalSymlinks("/proc/self/exe")
	if err != nil {
		b.Fatal(err)
	}
	for _, bench := range []struct {
		name string
		argv []string
	}{{"plain", []string{path}}, {"shim", []string{executable, activation.ShimCommand, "--", path}}} {
		b.Run(bench.name, func(b *testing.B) {
			for b.Loop() {
				if err := (&exec.Cmd{Path: bench.argv[0], Args: bench.argv}).Run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
