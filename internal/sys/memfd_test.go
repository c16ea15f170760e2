package sys_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/8265a91a/supervisor/internal/sys"
)

func TestSealedMemfd(t *testing.T) {
	data := bytes.Repeat([]byte("state "), 100000)
	fd, err := sys.SealedMemfd("state", data)
	must(t, fd, err)
	for range 2 { // reading does not move the offset that all holders share
		if got, err := sys.ReadMemfd(fd.Num(), int64(len(data))); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("read %d bytes of %d (%v)", len(got), len(data), err)
		}
	}
	if _, err := sys.ReadMemfd(fd.Num(), int64(len(data))-1); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("reading more than allowed: %v", err)
	}
	dup, err := fd.Dup()
	must(t, dup, err)
	f := dup.File("memfd")
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, syscall.EPERM) {
		t.Errorf("writing: %v, want EPERM", err)
	}
	if err := f.Truncate(1); !errors.Is(err, syscall.EPERM) {
		t.Errorf("shrinking: %v, want EPERM", err)
	}
}

func TestReopenIsAnotherDescription(t *testing.T) {
	fd, err := sys.SealedMemfd("state", []byte("x"))
	must(t, fd, err)
	again, err := sys.Reopen(fd.Num())
	must(t, again, err)
	if same(t, fd, again) {
		t.Error("the FD store would drop it as a duplicate")
	}
	if got, err := sys.ReadMemfd(again.Num(), 10); err != nil || string(got) != "x" {
		t.Errorf("read %q (%v)", got, err)
	}
	if on, err := sys.CloseOnExec(again.Num()); !on || err != nil {
		t.Errorf("not close-on-exec (%v)", err)
	}
	if _, err := sys.Reopen(-1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("reopening what is not open: %v", err)
	}
}
