package control_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestOtherUser: even where the mode of the socket lets another user in, the daemon does not talk to it.
func TestOtherUser(t *testing.T) {
	const perl = "/usr/bin/perl"
	if _, err := os.Stat(perl); err != nil || os.Getuid() != 0 {
		t.Skip("needs root and perl to connect as another user")
	}
	dir := serve(t, &daemon{})
	path := filepath.Join(dir, "control.sock")
	const script = `$SIG{PIPE} = "IGNORE"; socket(S, AF_UNIX, SOCK_STREAM, 0) or die; connect(S, pack_sockaddr_un($ARGV[0])) or die "$!\n";
		syswrite(S, qq({"v":1,"op":"status"}\n)); print <S>;`
	ask := func() ([]byte, error) {
		cmd := exec.Command(perl, "-MSocket", "-e", script, path)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		return cmd.CombinedOutput()
	}
	for _, open := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(open, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := ask(); err == nil || !bytes.Contains(out, []byte("Permission denied")) {
		t.Errorf("connecting to a socket of mode 0600 gave %s (%v)", out, err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if out, err := ask(); err != nil || !bytes.Contains(out, []byte("user 65534 may not control this service")) {
		t.Errorf("the daemon answered %s (%v)", out, err)
	}
}
