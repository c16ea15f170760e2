package unit_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/8265a91a/supervisor/internal/leaktest"
	"github.com/8265a91a/supervisor/internal/unit"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }

func TestParse(t *testing.T) {
	const service = "/system.slice/system-supervisor.slice/supervisor@web.service"
	for name, c := range map[string]struct{ text, marker, path string }{
		"unified":         {"0::" + service + "\n", "0::", service},
		"both, unified":   {"1:cpu:/\n9:name=systemd:/\n0::" + service + "\n", "0::", service},
		"both, version 1": {"1:name=systemd:" + service + "\n0::/\n", ":name=systemd:", service},
		"version 1":       {"5:memory:/x\n1:name=systemd:" + service + "\n", ":name=systemd:", service},
		"hybrid":          {"1:name=systemd:" + service + "\n0::" + service + "\n", ":name=systemd:", service},
		"colons":          {"0::/a:name=systemd:/b\n1:name=systemd:/\n", "0::", "/a:name=systemd:/b"},
		"nothing":         {"", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if marker, path := unit.Parse(c.text); marker != c.marker || path != c.path {
				t.Errorf("got %q %q, want %q %q", marker, path, c.marker, c.path)
			}
		})
	}
}

// What is found is the end of a line, and "/" only if no line says more.
func FuzzParse(f *testing.F) {
	f.Add("1:cpu:/\n9:name=systemd:/\n0::/system.slice/supervisor@web.service\n")
	f.Add("1:name=systemd:/system.slice/x.service\n0::/\n")
	f.Add("0::/a:name=systemd:/b\n0::\n")
	f.Add("0::/no newline")
	f.Add("0::/:name=systemd:\n0::/")
	f.Add("0::/0\n:name=systemd:\n0::/")
	f.Fuzz(func(t *testing.T, text string) {
		marker, path := unit.Parse(text)
		lines := strings.Split(text, "\n")
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasSuffix(l, marker+path) }) || strings.Contains(path, "\n") {
			t.Errorf("%q %q is in no line of %q", marker, path, text)
		}
		if path == "/" && slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "0::/") && l != "0::/" }) {
			t.Errorf("nothing is found in %q", text)
		}
	})
}

// A test is run by hand or by a build, in no service or in one that it must not touch: nothing is found outside of one.
func TestProcessesOutsideOfAUnit(t *testing.T) {
	if unit.Own() != "" {
		t.Skip("this test runs in the unit " + unit.Own())
	}
	if pids, err := unit.Processes(); err != nil || len(pids) != 0 {
		t.Errorf("got %v, %v", pids, err)
	}
	if of := unit.Of(os.Getpid()); of != "" {
		t.Errorf("this process is said to be in %q", of)
	}
	if unit.Contains(os.Getpid()) {
		t.Error("this process is said to be in a unit")
	}
}
