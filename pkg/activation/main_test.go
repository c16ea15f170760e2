package activation_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	reference "github.com/coreos/go-systemd/v22/activation"

	"github.com/8265a91a/supervisor/internal/leaktest"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/activation"
)

// role makes the test binary a child: "take" and "reference" report what they were passed, "exec" hands over to
// another "take", "listen" binds its argument.
const role = "ACTIVATION_TEST_ROLE"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == activation.ShimCommand {
		err := activation.Shim(os.Args[2:])
		fmt.Fprintln(os.Stderr, err)
		if errors.Is(err, os.ErrNotExist) {
			os.Exit(127)
		}
		os.Exit(126)
	}
	switch os.Getenv(role) {
	case "":
		// What the caller of the tests left open must not look as if the tests had passed it.
		for n := 3; n < 100; n++ {
			_ = sys.SetCloseOnExec(n)
		}
		os.Exit(leaktest.Main(m))
	case "take":
		reportTake()
	case "reference":
		reportReference()
	case "exec":
		reexec()
	case "listen":
		l, err := net.Listen("tcp", os.Args[1])
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		l.Close()
	}
}

// report is what a child says about itself.
type report struct {
	PID     int
	Args    []string
	Env     []string
	Passed  []passedFD
	Errors  []string
	Max     int
	Nonzero []int // descriptors above 2 that are not close-on-exec after Take
}

type passedFD struct {
	Name, Meta, Address string
}

func reportTake() {
	result, errs := activation.Take()
	r := newReport()
	r.Max = result.StoreMax
	for _, err := range errs {
		r.Errors = append(r.Errors, err.Error())
	}
	for _, d := range result.Descriptors {
		p := passedFD{Name: d.Name, Meta: d.Meta}
		if s, err := sys.Inspect(d.FD.Num()); err == nil {
			p.Address = s.Address
		}
		r.Passed = append(r.Passed, p)
	}
	for n := 3; n < 100; n++ {
		if cloexec, err := sys.CloseOnExec(n); err == nil && !cloexec {
			r.Nonzero = append(r.Nonzero, n)
		}
	}
	json.NewEncoder(os.Stdout).Encode(r)
}

func reportReference() {
	r := newReport()
	for name, files := range reference.FilesWithNames() {
		for _, f := range files {
			r.Passed = append(r.Passed, passedFD{Name: name, Address: address(int(f.Fd()))})
		}
	}
	json.NewEncoder(os.Stdout).Encode(r)
}

// reexec hands what it was passed over to the next program in the same process.
func reexec() {
	result, _ := activation.Take()
	var entries []activation.Named
	for i, d := range result.Descriptors {
		entries = append(entries, activation.Named{Name: d.Name, Meta: fmt.Sprint("meta-", i), FD: d.FD})
	}
	variable, _, err := activation.Handover(entries)
	if err == nil {
		err = syscall.Exec("/proc/self/exe", []string{"reexec"}, []string{role + "=take", variable})
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func newReport() report { return report{PID: os.Getpid(), Args: os.Args, Env: os.Environ()} }

func address(n int) string {
	s, err := sys.Inspect(n)
	if err != nil {
		return err.Error()
	}
	return s.Address
}

// start runs argv with files as its descriptors from 3, and returns its standard output and how it ended.
func start(t *testing.T, argv, env []string, files []int) (stdout, stderr string, status syscall.WaitStatus) {
	t.Helper()
	outR, outW, err := sys.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	errR, errW, err := sys.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	attr := &syscall.ProcAttr{Env: env, Files: []uintptr{0, uintptr(outW.Num()), uintptr(errW.Num())}}
	for _, f := range files {
		attr.Files = append(attr.Files, uintptr(f))
	}
	pid, err := syscall.ForkExec(argv[0], argv, attr)
	outW.Close()
	errW.Close()
	out, eout := outR.File("stdout"), errR.File("stderr")
	defer out.Close()
	defer eout.Close()
	if err != nil {
		t.Fatal(err)
	}
	o, oerr := io.ReadAll(out)
	e, eerr := io.ReadAll(eout)
	if _, err := syscall.Wait4(pid, &status, 0, nil); errors.Join(err, oerr, eerr) != nil {
		t.Fatal(errors.Join(err, oerr, eerr))
	}
	return string(o), string(e), status
}

// startReport is start for a child that reports.
func startReport(t *testing.T, argv, env []string, files []int) report {
	t.Helper()
	stdout, stderr, status := start(t, argv, env, files)
	if !status.Exited() || status.ExitStatus() != 0 || strings.TrimSpace(stderr) != "" {
		t.Fatalf("child ended with %v: %s", status, stderr)
	}
	var r report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("%v in %q", err, stdout)
	}
	return r
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func listener(tb testing.TB) *sys.FD {
	tb.Helper()
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { fd.Close() })
	return fd
}
