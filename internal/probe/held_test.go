package probe_test

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/probe"
	"github.com/8265a91a/supervisor/internal/sys"
)

func TestHeld(t *testing.T) {
	a := openListener(t)
	b := openListener(t)
	inodeA, inodeB := inodeOf(t, a), inodeOf(t, b)
	const nobody = 1 << 30 // no such process
	pids := []int{nobody, os.Getpid()}

	got, err := probe.Held(pids, []uint64{inodeA, inodeB, 1})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[uint64]int{inodeA: os.Getpid(), inodeB: os.Getpid()}, got); diff != "" {
		t.Errorf("unlike what is open (-want +got):\n%s", diff)
	}

	b.Close()
	got, err = probe.Held(pids, []uint64{inodeA, inodeB})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[uint64]int{inodeA: os.Getpid()}, got); diff != "" {
		t.Errorf("after one was closed (-want +got):\n%s", diff)
	}
}

func openListener(t *testing.T) *sys.FD {
	t.Helper()
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fd.Close() })
	return fd
}

func inodeOf(t *testing.T, fd *sys.FD) uint64 {
	t.Helper()
	inode, err := sys.Inode(fd.Num())
	if err != nil {
		t.Fatal(err)
	}
	return inode
}
