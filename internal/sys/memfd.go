package sys

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// SealedMemfd returns a close-on-exec memfd that holds data and can never change again. The caller closes it.
func SealedMemfd(name string, data []byte) (*FD, error) {
	n, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	fd := NewFD(n)
	for off := 0; off < len(data); {
		w, err := unix.Pwrite(n, data[off:], int64(off))
		if err != nil && err != unix.EINTR {
			fd.Close()
			return nil, os.NewSyscallError("pwrite", err)
		}
		off += max(w, 0)
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(n), unix.F_ADD_SEALS, seals); err != nil {
		fd.Close()
		return nil, os.NewSyscallError("fcntl(F_ADD_SEALS)", err)
	}
	return fd, nil
}

// ReadMemfd returns the whole content of the borrowed memfd n, at most limit bytes, without moving its offset
// (which all holders share).
func ReadMemfd(n int, limit int64) ([]byte, error) {
	var st unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Fstat(n, &st) }); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if st.Size > limit {
		return nil, fmt.Errorf("memfd holds %d bytes, more than the %d allowed", st.Size, limit)
	}
	data := make([]byte, st.Size)
	for off := 0; off < len(data); {
		r, err := unix.Pread(n, data[off:], int64(off))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("pread", err)
		}
		if r == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		off += r
	}
	return data, nil
}

// Reopen returns a new open file description of the borrowed memfd n, read-only: systemd's FD store takes it for
// another descriptor, where a dup would be dropped as a duplicate. The caller closes it.
func Reopen(n int) (*FD, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", n), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	return NewFD(fd), nil
}
