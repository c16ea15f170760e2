package activation_test

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/activation"
)

// firstFD is where the tests of this process put what is "passed": far from what the runtime and testing use.
const firstFD = 700

// pass puts duplicates of fds, as inherited descriptors, at firstFD and on, and returns a function that closes those
// that were not taken.
func pass(tb testing.TB, fds ...*sys.FD) {
	tb.Helper()
	for i, fd := range fds {
		if fd == nil {
			continue
		}
		if err := syscall.Dup3(fd.Num(), firstFD+i, 0); err != nil {
			tb.Fatal(err)
		}
	}
}

func names(r activation.Result) []string {
	list := []string{}
	for _, d := range r.Descriptors {
		list = append(list, d.Name)
	}
	return list
}

func closeResult(r activation.Result) {
	for _, d := range r.Descriptors {
		d.FD.Close()
	}
}

func TestTakeCore(t *testing.T) {
	const pid, pidfdID = 4711, 99
	for _, tt := range []struct {
		name   string
		env    string
		open   int // of three
		want   []string
		errors []string
	}{
		{"nothing", "", 3, []string{}, nil},
		{"named", "LISTEN_PID=4711 LISTEN_FDS=2 LISTEN_FDNAMES=a:b LISTEN_PIDFDID=99", 2, []string{"a", "b"}, nil},
		{"zero", "LISTEN_PID=4711 LISTEN_FDS=0", 0, []string{}, nil},
		{"zero with empty names", "LISTEN_PID=4711 LISTEN_FDS=0 LISTEN_FDNAMES=", 0, []string{}, nil},
		{"unnamed", "LISTEN_PID=4711 LISTEN_FDS=2", 2, []string{"unknown", "unknown"}, nil},
		{"empty name", "LISTEN_PID=4711 LISTEN_FDS=1 LISTEN_FDNAMES=", 1, []string{""}, nil},
		{"no pid", "LISTEN_FDS=2", 2, []string{}, []string{"without LISTEN_PID"}},
		{"wrong pid, garbage count", "LISTEN_PID=1 LISTEN_FDS=two", 2, []string{}, []string{"LISTEN_PID=1 is not this process, 4711"}},
		{"wrong pid", "LISTEN_PID=1 LISTEN_FDS=2", 2, []string{}, []string{"LISTEN_PID=1 is not this process, 4711"}},
		{"garbage pid", "LISTEN_PID=x LISTEN_FDS=2", 2, []string{}, []string{`!LISTEN_PID="x" is not a process id`}},
		{"garbage count", "LISTEN_PID=4711 LISTEN_FDS=two", 2, []string{}, []string{`!LISTEN_FDS="two" is not a number`}},
		{"negative count", "LISTEN_PID=4711 LISTEN_FDS=-1", 2, []string{}, []string{`!LISTEN_FDS="-1" is not a number`}},
		{"count beyond", "LISTEN_PID=4711 LISTEN_FDS=3 LISTEN_FDNAMES=a:b:c", 1, []string{"a"}, []string{"!not open: 701, 702: bad file descriptor"}},
		{"absurd count", "LISTEN_PID=4711 LISTEN_FDS=2000000000", 2, []string{"unknown", "unknown"}, []string{"!and 1999999990 more"}},
		{"overflowing count", "LISTEN_PID=4711 LISTEN_FDS=99999999999999999999", 2, []string{}, []string{"!is not a number"}},
		{"too few names", "LISTEN_PID=4711 LISTEN_FDS=2 LISTEN_FDNAMES=a", 2, []string{"unknown", "unknown"}, []string{"1 names for 2 descriptors"}},
		{"too many names", "LISTEN_PID=4711 LISTEN_FDS=1 LISTEN_FDNAMES=a:b", 1, []string{"unknown"}, []string{"2 names for 1 descriptors"}},
		{"instance with colon", "LISTEN_PID=4711 LISTEN_FDS=3 LISTEN_FDNAMES=tp@a:b.socket:tp@c.socket:supervisor.state", 3,
			[]string{"tp@a:b.socket", "tp@c.socket", "supervisor.state"}, nil},
		{"stale pidfd id", "LISTEN_PID=4711 LISTEN_FDS=1 LISTEN_PIDFDID=98", 1, []string{"unknown"}, []string{"LISTEN_PIDFDID=98 is not this process, 99"}},
		{"garbage pidfd id", "LISTEN_PID=4711 LISTEN_FDS=1 LISTEN_PIDFDID=x", 1, []string{"unknown"}, []string{`LISTEN_PIDFDID="x"`}},
		{"garbage store size", "FDSTORE=many", 0, []string{}, []string{`FDSTORE="many"`}},
		{"garbage handover", "SUPERVISOR_HANDOVER=1", 0, []string{}, []string{`!SUPERVISOR_HANDOVER="1" is not a descriptor`}},
		{"closed handover", "SUPERVISOR_HANDOVER=900", 0, []string{}, []string{"!SUPERVISOR_HANDOVER=900"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fd := listener(t)
			for i := range tt.open {
				pass(t, append(make([]*sys.FD, i), fd)...)
			}
			env := parseEnv(tt.env)
			r, errs := activation.TakeFrom(env, pid, pidfdID, firstFD)
			closeResult(r)
			for i := len(r.Descriptors); i < tt.open; i++ {
				// What was not taken is still open.
				if err := syscall.Close(firstFD + i); err != nil {
					t.Errorf("descriptor %d: %v", firstFD+i, err)
				}
			}
			if diff := cmp.Diff(tt.want, names(r)); diff != "" {
				t.Error(diff)
			}
			if len(errs) != len(tt.errors) {
				t.Fatalf("errors: %v", errs)
			}
			for i, err := range errs {
				want, lost := strings.CutPrefix(tt.errors[i], "!")
				if !strings.Contains(err.Error(), want) || errors.Is(err, activation.ErrLost) != lost {
					t.Errorf("error %q, want %q in it, and something lost: %v", err, want, lost)
				}
			}
			if len(env) != 0 {
				t.Errorf("left in the environment: %v", env)
			}
		})
	}
}

func parseEnv(s string) map[string]string {
	env := map[string]string{}
	for _, variable := range strings.Fields(s) {
		key, value, _ := strings.Cut(variable, "=")
		env[key] = value
	}
	return env
}

// A lying LISTEN_FDS must not take what the runtime opened for itself.
func TestTakeLeavesCloseOnExecAlone(t *testing.T) {
	a, b := listener(t), listener(t)
	pass(t, a, b, a)
	if err := sys.SetCloseOnExec(firstFD + 1); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(firstFD + 1)
	env := parseEnv("LISTEN_PID=1 LISTEN_FDS=3 LISTEN_FDNAMES=a:b:c")
	r, errs := activation.TakeFrom(env, 1, 0, firstFD)
	defer closeResult(r)
	if diff := cmp.Diff([]string{"a", "c"}, names(r)); diff != "" {
		t.Error(diff)
	}
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "descriptor 701 of LISTEN_FDS=3 is close-on-exec") {
		t.Errorf("errors: %v", errs)
	}
	if address(firstFD+1) != address(b.Num()) {
		t.Error("descriptor was closed")
	}
}

func TestTakeTellsKinds(t *testing.T) {
	pidfd, err := sys.PidfdOpen(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer pidfd.Close()
	memfd, err := sys.SealedMemfd("x", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer memfd.Close()
	r0, w, err := sys.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r0.Close()
	defer w.Close()
	pass(t, listener(t), pidfd, memfd, w)
	r, errs := activation.TakeFrom(parseEnv("LISTEN_PID=1 LISTEN_FDS=4"), 1, 0, firstFD)
	defer closeResult(r)
	if len(errs) > 0 {
		t.Error(errs)
	}
	var kinds []activation.Kind
	for _, d := range r.Descriptors {
		kinds = append(kinds, d.Kind)
	}
	want := []activation.Kind{activation.KindSocket, activation.KindPidfd, activation.KindMemfd, activation.KindOther}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Error(diff)
	}
}

// A bundle that cannot be read is not lost.
func TestTakeKeepsUnreadableHandover(t *testing.T) {
	pass(t, listener(t))
	r, errs := activation.TakeFrom(map[string]string{activation.HandoverVariable: strconv.Itoa(firstFD)}, 1, 0, 3)
	defer closeResult(r)
	if diff := cmp.Diff([]string{activation.HandoverVariable}, names(r)); diff != "" {
		t.Error(diff)
	}
	if len(errs) != 1 || !r.Handover {
		t.Errorf("errors: %v, handover %v", errs, r.Handover)
	}
}

func FuzzTake(f *testing.F) {
	f.Add("1", "2", "a:b", "9", "512", "")
	f.Add("1", "-1", ":::", "", "x", "700")
	f.Add("", "4", "tp@a:b.socket:c:d:e", "18446744073709551616", "", "-5")
	f.Add("1", "1048577", "@:@.socket", "", "", "")
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { fd.Close() })
	// Descriptors 0, 1 and 3 are passed, 2 is the runtime's, 4 is not open.
	const passedMask, cloexecAt, total = 0b1011, 2, 4
	f.Fuzz(func(t *testing.T, pid, count, fdnames, pidfdID, store, handover string) {
		pass(t, fd, fd, fd, fd)
		sys.SetCloseOnExec(firstFD + cloexecAt)
		defer func() {
			for i := range total {
				syscall.Close(firstFD + i)
			}
		}()
		env := map[string]string{
			"LISTEN_PID": pid, "LISTEN_FDS": count, "LISTEN_FDNAMES": fdnames, "LISTEN_PIDFDID": pidfdID, "FDSTORE": store,
		}
		r, errs := activation.TakeFrom(env, 1, 9, firstFD)
		if len(env) != 0 {
			t.Errorf("left in the environment: %v", env)
		}
		n, err := strconv.Atoi(count)
		want := 0
		for i := range min(max(n, 0), total) {
			want += passedMask >> i & 1
		}
		if p, perr := strconv.Atoi(pid); err != nil || perr != nil || p != 1 {
			want = 0
		}
		if len(r.Descriptors) != want {
			t.Errorf("%d descriptors, want %d: %v", len(r.Descriptors), want, errs)
		}
		for _, d := range r.Descriptors {
			if i := d.FD.Num() - firstFD; i < 0 || i >= total || passedMask>>i&1 == 0 {
				t.Errorf("took descriptor %d", d.FD.Num())
			}
			d.FD.Close()
		}
		if want > 0 && n == total && strings.Count(fdnames, ":") == total-1 {
			if diff := cmp.Diff(fdnames, names(r)[0]+":"+names(r)[1]+":"+strings.Split(fdnames, ":")[2]+":"+names(r)[2]); diff != "" {
				t.Error(diff)
			}
		}
		hr, _ := activation.TakeFrom(map[string]string{activation.HandoverVariable: handover}, 1, 9, firstFD)
		closeResult(hr)
	})
}

func TestTakeInAChild(t *testing.T) {
	fds := []*sys.FD{listener(t), listener(t)}
	files := []int{fds[0].Num(), fds[1].Num()}
	want := []passedFD{{Name: "a", Address: address(files[0])}, {Name: "b", Address: address(files[1])}}
	r := startReport(t, []string{self(t), activation.ShimCommand, "--", self(t)},
		[]string{role + "=take", "LISTEN_FDS=2", "LISTEN_FDNAMES=a:b", "FDSTORE=17"}, files)
	if diff := cmp.Diff(want, r.Passed); diff != "" {
		t.Error(diff)
	}
	if r.Max != 17 || len(r.Errors) != 0 || len(r.Nonzero) != 0 {
		t.Errorf("max %d, errors %v, inheritable %v", r.Max, r.Errors, r.Nonzero)
	}
	if diff := cmp.Diff([]string{role + "=take"}, r.Env); diff != "" {
		t.Error(diff)
	}
}

// Nothing was passed: the runtime's own descriptors sit at 3 and on, and stay what they are.
func TestTakeInAChildThatWasLiedTo(t *testing.T) {
	r := startReport(t, []string{self(t), activation.ShimCommand, "--", self(t)},
		[]string{role + "=take", "LISTEN_FDS=20"}, nil)
	if len(r.Passed) != 0 || len(r.Errors) == 0 {
		t.Errorf("passed %v, errors %v", r.Passed, r.Errors)
	}
}

func TestHandoverOverExecve(t *testing.T) {
	var files []int
	var want []passedFD
	for i := range 300 {
		fd := listener(t)
		files = append(files, fd.Num())
		want = append(want, passedFD{Name: fmt.Sprint("s", i), Meta: fmt.Sprint("meta-", i), Address: address(fd.Num())})
	}
	var list []string
	for _, p := range want {
		list = append(list, p.Name)
	}
	r := startReport(t, []string{self(t), activation.ShimCommand, "--", self(t)},
		[]string{role + "=exec", "LISTEN_FDS=300", "LISTEN_FDNAMES=" + strings.Join(list, ":")}, files)
	if diff := cmp.Diff(want, r.Passed); diff != "" {
		t.Error(diff)
	}
	if len(r.Errors) != 0 || len(r.Nonzero) != 0 {
		t.Errorf("errors %v, inheritable %v", r.Errors, r.Nonzero)
	}
}
