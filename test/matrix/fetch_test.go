//go:build vm

package matrix

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/8265a91a/supervisor/test/vm"
)

// The versions of what does not come from Debian.
const (
	caddyVersion   = "2.11.9"
	fastifyVersion = "5.12.8"
)

// fromGo builds a program of another module, by the Go module proxy.
func fromGo(pkg, path string) func(*vm.Machine, *testing.T) {
	return func(m *vm.Machine, t *testing.T) {
		dir := t.TempDir()
		cmd := exec.Command("go", "install", "-trimpath", pkg)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOBIN="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go install %s: %v\n%s", pkg, err, out)
		}
		m.InstallBinary(filepath.Join(dir, filepath.Base(path)), path)
	}
}

// fromNPM installs what apps/NAME-package.json and its lock file say into /srv/NAME.
func fromNPM(name string) func(*vm.Machine, *testing.T) {
	return func(m *vm.Machine, t *testing.T) {
		dir := t.TempDir()
		for _, file := range []string{"package.json", "package-lock.json"} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(app(name+"-"+file)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		npm.Dir = dir
		if out, err := npm.CombinedOutput(); err != nil {
			t.Fatalf("npm ci: %v (is the package npm installed?)\n%s", err, out)
		}
		archive := filepath.Join(dir, "modules.tar")
		if out, err := exec.Command("tar", "-C", dir, "-cf", archive, "node_modules").CombinedOutput(); err != nil {
			t.Fatalf("tar: %v\n%s", err, out)
		}
		m.InstallBinary(archive, "/srv/"+name+"/modules.tar")
		m.Run("tar", "--no-same-owner", "-C", "/srv/"+name, "-xf", "/srv/"+name+"/modules.tar")
	}
}
