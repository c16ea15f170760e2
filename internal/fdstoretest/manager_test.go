package fdstoretest_test

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/fdstoretest"
	"github.com/8265a91a/supervisor/internal/leaktest"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/fdstore"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }

func TestExercise(t *testing.T) {
	m := fdstoretest.New(t)
	m.SetMax(fdstoretest.ExerciseMax)
	if err := fdstoretest.Exercise(m.Socket); err != nil {
		t.Fatal(err)
	}
	if err := fdstoretest.Fill(m.Socket); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fdstoretest.Outcome(), m.Names()); diff != "" {
		t.Error(diff)
	}
	for _, e := range m.Entries() {
		if e.Name != "bundle" {
			continue
		}
		entries, err := fdstore.ReadBundle(e.FD)
		if err != nil || len(entries) != fdstoretest.ExerciseBundle {
			t.Errorf("bundle holds %d, %v", len(entries), err)
		}
		for _, b := range entries {
			b.FD.Close()
		}
	}
}

func TestEnvironment(t *testing.T) {
	m := fdstoretest.New(t)
	m.SetMax(3)
	store, err := fdstore.Open(m.Socket)
	if err != nil {
		t.Fatal(err)
	}
	var fds []*sys.FD
	for range 3 {
		fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		defer fd.Close()
		fds = append(fds, fd)
	}
	m.AddSocketUnit(t, "unit.socket", fds[0].Num())
	for i, name := range []string{"old", "new"} {
		if err := store.Add(name, fds[i+1].Num(), true); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Notify("READY=1"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := m.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	env, files := m.Environment()
	want := []string{"NOTIFY_SOCKET=" + m.Socket, "FDSTORE=3", "LISTEN_FDS=3", "LISTEN_FDNAMES=unit.socket:new:old"}
	if diff := cmp.Diff(want, env); diff != "" {
		t.Error(diff)
	}
	for i, from := range []int{0, 2, 1} {
		if same, err := sys.SameDescription(files[i], fds[from].Num()); err != nil || !same {
			t.Errorf("descriptor %d is not socket %d (%v)", i, from, err)
		}
	}
	m.SetMax(1)
	if diff := cmp.Diff([]string{"new"}, m.Names()); diff != "" {
		t.Error(diff)
	}
	m.Stop()
	// The socket unit keeps its own.
	if env, _ := m.Environment(); !slices.Contains(env, "LISTEN_FDNAMES=unit.socket") {
		t.Errorf("after a stop: %v", env)
	}
}
