package sys_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestOn32Bit runs the tests whose subject is laid out by the kernel as a 32-bit program.
func TestOn32Bit(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skipf("%s has no 32-bit programs that this test knows", runtime.GOARCH)
	}
	binary := filepath.Join(t.TempDir(), "sys.test")
	build := exec.Command("go", "test", "-c", "-o", binary, ".")
	build.Env = append(os.Environ(), "GOARCH=386", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build for 386: %v\n%s", err, out)
	}
	if out, err := exec.Command(binary, "-test.run=^$").CombinedOutput(); err != nil {
		t.Skipf("this kernel runs no 32-bit programs: %v\n%s", err, out)
	}
	const subjects = "^(TestReap|TestSubreaper|TestPidfd|TestMessage|TestMaxRights|TestEmptyMessage|TestPartialWrite|TestTruncatedRights|TestCredentials|TestSendTo|TestReceiveRights|TestInspect)"
	for name := range strings.SplitSeq(strings.Trim(subjects, "^()"), "|") {
		if out, err := exec.Command(binary, "-test.list=^"+name).Output(); err != nil || len(out) == 0 {
			t.Errorf("no test is called %s… (%v)", name, err)
		}
	}
	if out, err := exec.Command(binary, "-test.run="+subjects).CombinedOutput(); err != nil {
		t.Errorf("as a 32-bit program: %v\n%s", err, out)
	}
}
