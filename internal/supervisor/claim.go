package supervisor

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

// identityFile is in the service's runtime directory, mode 0600. Its holder is the service's supervisor, and its
// content is the secret part of the marker: a name could be carried by another service of the same name, in another
// runtime directory or container, or by a stranger who wants to be taken for one of our processes.
const identityFile = "identity"

// claimPatience is how long to wait for the last supervisor to be gone: a process that it was starting when it was
// killed has a copy of its descriptors until execve.
const claimPatience = time.Second

// claim makes this process the one supervisor of the service as long as the returned file is open, and reads the
// identity of the service: "" if there is none yet.
func claim(runtime string) (file *os.File, identity string, err error) {
	path := filepath.Join(runtime, identityFile)
	file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, "", err
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err = sys.Lock(file)
		if !errors.Is(err, sys.ErrLocked) || time.Since(began) > claimPatience {
			break
		}
	}
	if errors.Is(err, sys.ErrLocked) {
		err = fmt.Errorf("another supervisor runs with this name and runtime directory (%s is locked); it goes on undisturbed", path)
	}
	var data []byte
	if err == nil {
		data, err = io.ReadAll(io.LimitReader(file, 2*identityLength))
	}
	if err != nil {
		file.Close()
		return nil, "", err
	}
	return file, strings.TrimSpace(string(data)), nil
}

const identityLength = 32

func validIdentity(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == identityLength
}

// identify settles who the service is: what the last supervisor's state says, which its workers carry, or else the
// file, or else something new. The file is for "supervisor sweep" and for a start without a state.
func (d *Daemon) identify(file *os.File, inFile string, last *state) error {
	switch {
	case last != nil && validIdentity(last.Identity):
		d.identity = last.Identity
	case validIdentity(inFile):
		d.identity = inFile
	default:
		random := make([]byte, identityLength/2)
		rand.Read(random) // never fails
		d.identity = hex.EncodeToString(random)
	}
	if d.identity == inFile {
		return nil
	}
	err := file.Truncate(0)
	if err == nil {
		_, err = file.WriteAt([]byte(d.identity+"\n"), 0)
	}
	return err
}

// Identity reads what the processes of the service with that runtime directory are known by, for Marker.
func Identity(runtime string) (string, error) {
	data, err := os.ReadFile(filepath.Join(runtime, identityFile))
	if err != nil {
		return "", err
	}
	identity := strings.TrimSpace(string(data))
	if !validIdentity(identity) {
		return "", fmt.Errorf("%s is damaged", filepath.Join(runtime, identityFile))
	}
	return identity, nil
}
