package leaktest_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/8265a91a/supervisor/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }

// leak names what TestLeak leaves behind when this test binary runs again as its own child.
const leak = "LEAKTEST_LEAK"

var kept *os.File

func TestLeak(t *testing.T) {
	switch os.Getenv(leak) {
	case "descriptor":
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		kept = r
	case "goroutine":
		go func() { select {} }()
	case "process":
		cmd := exec.Command("/bin/sleep", "5")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmd.Process.Release()
	case "failure":
		t.Error("on purpose")
	}
}

func TestMainFindsLeaks(t *testing.T) {
	if os.Getenv(leak) != "" {
		t.Skip("this is the child")
	}
	for what, word := range map[string]string{
		"nothing": "", "descriptor": "left behind: descriptor", "goroutine": "select (no cases)", "process": "/bin/sleep", "failure": "on purpose",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestLeak$")
			cmd.Env = append(os.Environ(), leak+"="+what)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			err := cmd.Run()
			if (err == nil) != (what == "nothing") || !strings.Contains(out.String(), word) {
				t.Errorf("%v\n%s", err, out.String())
			}
		})
	}
}
