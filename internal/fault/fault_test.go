//go:build fault

package fault_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/fault"
	"github.com/8265a91a/supervisor/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }

func TestPoint(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "fault")
	t.Setenv("SUPERVISOR_FAULT_FILE", file)
	arm := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	armed := func() bool {
		_, err := os.Lstat(file)
		return err == nil
	}

	fault.Point("before nothing") // no file
	arm("after check#2: exec echo x > " + filepath.Join(dir, "done"))
	fault.Point("before check")
	fault.Point("after check")
	if !armed() {
		t.Fatal("it was done the first time")
	}
	fault.Point("after check")
	if _, err := os.Lstat(filepath.Join(dir, "done")); err != nil || armed() {
		t.Error("it was not done the second time, or would be done again: ", err)
	}

	arm("x: delay 30ms")
	began := time.Now()
	fault.Point("x")
	if took := time.Since(began); took < 30*time.Millisecond {
		t.Errorf("a delay of 30ms took %s", took)
	}

	if err := os.WriteFile(file+".seen", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fault.Point("a b")
	fault.Point("x")
	if data, _ := os.ReadFile(file + ".seen"); string(data) != "a b\nx\n" {
		t.Errorf("seen: %q", data)
	}
	if names := fault.Names(); !slices.Equal(names, []string{"before nothing", "before check", "after check", "x", "a b"}) {
		t.Errorf("names: %q", names)
	}
}
