package sys

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// procLimit bounds what is read of one file: an environment may be a few MiB at most.
const procLimit = 8 << 20

// ReadProc reads a file of /proc into buf, which it grows as needed and returns cut to the content. It spends three
// system calls where os.ReadFile spends six, which matters when every process of a machine is looked at.
func ReadProc(path string, buf []byte) ([]byte, error) {
	n, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(n)
	if cap(buf) == 0 {
		buf = make([]byte, 0, 4096)
	}
	buf = buf[:0]
	for {
		var got int
		err := ignoringEINTR(func() (err error) { got, err = unix.Read(n, buf[len(buf):cap(buf)]); return err })
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		buf = buf[:len(buf)+got]
		if got == 0 {
			return buf, nil
		}
		if len(buf) == cap(buf) {
			if len(buf) >= procLimit {
				return nil, fmt.Errorf("read %s: more than %d bytes", path, procLimit)
			}
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
	}
}
