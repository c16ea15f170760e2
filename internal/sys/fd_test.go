package sys_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/8265a91a/supervisor/internal/sys"
)

func TestFDIsClosedOnce(t *testing.T) {
	r, w, err := sys.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	n := r.Num()
	if err := r.Close(); err != nil || open(n) {
		t.Errorf("close: %v, still open: %v", err, open(n))
	}
	// Whoever gets the number next must not lose it to a second Close.
	again := must(t, w, nil)
	dup, err := again.Dup()
	if err != nil {
		t.Fatal(err)
	}
	defer dup.Close()
	if err := r.Close(); err != nil || r.Num() != -1 || !open(dup.Num()) {
		t.Errorf("second close: %v, number %d", err, r.Num())
	}
	var none *sys.FD
	if none.Num() != -1 || none.Close() != nil {
		t.Error("a nil FD is not harmless")
	}
	// Standard input must not be its.
	var zero sys.FD
	if zero.Num() != -1 || zero.Close() != nil || zero.Disown() != -1 || !open(0) {
		t.Error("a zero FD is not harmless")
	}
}

func TestFDDisown(t *testing.T) {
	r, w, err := sys.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	n := r.Disown()
	if r.Num() != -1 || r.Close() != nil || !open(n) {
		t.Error("the FD still owns what it gave away")
	}
	sys.NewFD(n).Close()
}

func TestFDDup(t *testing.T) {
	r, w, err := sys.Pipe()
	must(t, r, err)
	must(t, w, err)
	dup, err := r.Dup()
	must(t, dup, err)
	if !same(t, r, dup) || same(t, r, w) {
		t.Error("the duplicate is of another open file description")
	}
	for _, fd := range []*sys.FD{r, w, dup} {
		if on, err := sys.CloseOnExec(fd.Num()); !on || err != nil {
			t.Errorf("descriptor %d is not close-on-exec (%v)", fd.Num(), err)
		}
	}
	r.Close()
	if _, err := r.Dup(); !errors.Is(err, syscall.EBADF) {
		t.Errorf("duplicating a closed FD: %v", err)
	}
}

func TestCloseOnExec(t *testing.T) {
	r, w, err := sys.Pipe()
	must(t, r, err)
	must(t, w, err)
	for _, step := range []struct {
		set  func(int) error
		want bool
	}{{sys.ClearCloseOnExec, false}, {sys.SetCloseOnExec, true}} {
		if err := step.set(r.Num()); err != nil {
			t.Fatal(err)
		}
		if on, err := sys.CloseOnExec(r.Num()); on != step.want || err != nil {
			t.Errorf("close-on-exec is %v (%v), want %v", on, err, step.want)
		}
	}
}

// TestNonblockIsShared is the reason why a carried descriptor must never become a net.Listener.
func TestNonblockIsShared(t *testing.T) {
	r, w, err := sys.Pipe()
	must(t, r, err)
	must(t, w, err)
	dup, err := r.Dup()
	must(t, dup, err)
	for _, want := range []bool{false, true, true, false} {
		if err := sys.SetNonblock(r.Num(), want); err != nil {
			t.Fatal(err)
		}
		if on, err := sys.Nonblock(dup.Num()); on != want || err != nil {
			t.Errorf("the duplicate's O_NONBLOCK is %v (%v), want %v", on, err, want)
		}
	}
}

func TestFDFile(t *testing.T) {
	r, w, err := sys.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	f := w.File("pipe")
	if w.Num() != -1 {
		t.Error("the FD still owns the file's descriptor")
	}
	if _, err := f.WriteString("x"); err != nil {
		t.Error(err)
	}
	f.Close()
	sys.CloseAll([]*sys.FD{r, nil, w})
	if r.Num() != -1 {
		t.Error("CloseAll left one open")
	}
}

func TestKindOf(t *testing.T) {
	listener, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	must(t, listener, err)
	memfd, err := sys.SealedMemfd("kind", nil)
	must(t, memfd, err)
	pidfd, err := sys.PidfdOpen(os.Getpid())
	must(t, pidfd, err)
	r, w, err := sys.Pipe()
	must(t, r, err)
	must(t, w, err)
	file := func(dir string) *sys.FD {
		f, err := os.Create(filepath.Join(dir, "file"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fd, err := sys.DupNum(int(f.Fd()))
		return must(t, fd, err)
	}
	tmpfs, err := os.MkdirTemp("/dev/shm", "kind")
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(tmpfs)
	for _, tc := range []struct {
		name string
		fd   *sys.FD
		want sys.Kind
	}{
		{"socket", listener, sys.KindSocket}, {"memfd", memfd, sys.KindMemfd}, {"pidfd", pidfd, sys.KindPidfd}, {"pipe", r, sys.KindOther},
		{"file", file(t.TempDir()), sys.KindOther}, {"file on a tmpfs", file(tmpfs), sys.KindOther},
	} {
		if got, err := sys.KindOf(tc.fd.Num()); got != tc.want || err != nil {
			t.Errorf("%s is of kind %d (%v), want %d", tc.name, got, err, tc.want)
		}
	}
	if _, err := sys.KindOf(-1); !errors.Is(err, syscall.EBADF) {
		t.Errorf("the kind of a number that is not open: %v", err)
	}
}

func TestNofileLimit(t *testing.T) {
	if soft, hard, err := sys.NofileLimit(); err != nil || soft == 0 || soft > hard {
		t.Errorf("limits are %d and %d (%v)", soft, hard, err)
	}
}
