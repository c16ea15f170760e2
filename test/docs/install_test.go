package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// "sudo make install" has no Go in its PATH: it installs what was built, and says what an upgrade needs.
func TestInstallNeedsNoGo(t *testing.T) {
	make, err := exec.LookPath("make")
	if err != nil {
		t.Skip("make is not installed")
	}
	tree, root := t.TempDir(), t.TempDir()
	for path, content := range map[string]string{
		"bin/supervisor": "as it was built",
		"path/go":        "#!/bin/sh\necho go was called; exit 1\n",
	} {
		path = filepath.Join(tree, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"Makefile", "units", "man", "cmd"} {
		target, err := filepath.Abs(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(tree, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(make, "-C", tree, "install", "DESTDIR="+root, "PREFIX=/opt")
	cmd.Env = []string{"PATH=" + filepath.Join(tree, "path") + ":/usr/sbin:/usr/bin:/sbin:/bin"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	for path, part := range map[string]string{
		"opt/bin/supervisor":                         "as it was built",
		"opt/lib/systemd/system/supervisor@.service": "ExecStart=/opt/bin/supervisor run %i",
		"opt/share/man/man8/supervisor.8":            ".Nm supervisor",
		"opt/share/doc/supervisor/examples/socket/supervisor@web.service.d/socket.conf": "Sockets=web.socket",
	} {
		content, err := os.ReadFile(filepath.Join(root, path))
		if err != nil || !strings.Contains(string(content), part) {
			t.Errorf("%s: %q is missing (%v)", path, part, err)
		}
	}
	out, err := exec.Command(make, "-C", tree, "-n", "install").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "supervisor reexec --all") {
		t.Errorf("an upgrade is not told of the next step: %v\n%s", err, out)
	}
}
