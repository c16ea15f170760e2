package probe

import (
	"bytes"
	"fmt"

	"github.com/8265a91a/supervisor/internal/sys"
)

// The events of epoll and poll that wake a process for a new connection or datagram: IN and RDNORM.
const readable = 0x001 | 0x040

func epollTargets(pid, fd int, missing map[uint64]bool, found func(uint64)) error {
	data, err := sys.ReadProc(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd), nil)
	if err != nil {
		return unlessGone(err)
	}
	for line := range bytes.Lines(data) {
		if inode, ok := parseTarget(line); ok && missing[inode] {
			found(inode)
		}
	}
	return nil
}

// parseTarget reads a line of an epoll descriptor's fdinfo,
//
//	tfd:        5 events:       19 data: 7f3c00000005  pos:0 ino:1b3c sdev:8
//
// and returns the inode of the target if it is armed for reading. Numbers are hexadecimal but for tfd. A one-shot
// target that has fired and was not armed again has no event bits left.
func parseTarget(line []byte) (inode uint64, armed bool) {
	if !bytes.HasPrefix(line, []byte("tfd:")) {
		return 0, false
	}
	events, ok := hexAfter(line, "events:")
	if !ok || events&readable == 0 {
		return 0, false
	}
	return hexAfter(line, "ino:")
}

// hexAfter returns the number that follows label, with or without blanks between.
func hexAfter(line []byte, label string) (uint64, bool) {
	_, rest, _ := bytes.Cut(line, []byte(label))
	rest = bytes.TrimLeft(rest, " ")
	if end := bytes.IndexAny(rest, " \n"); end >= 0 {
		rest = rest[:end]
	}
	return parseNumber(rest, 16)
}
