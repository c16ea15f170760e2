package sys

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// netlink frames one message.
func netlink(typ uint16, payload []byte) []byte {
	m := make([]byte, 16+(len(payload)+3)&^3)
	binary.NativeEndian.PutUint32(m, uint32(16+len(payload)))
	binary.NativeEndian.PutUint16(m[4:], typ)
	copy(m[16:], payload)
	return m
}

// FuzzParseNetlink feeds a datagram to the parsers of sock_diag: no answer may make them fail.
func FuzzParseNetlink(f *testing.F) {
	name := append(make([]byte, 16), 7, 0, 0, 0, 0, 'a', 'b', 0)
	f.Add(netlink(unix.SOCK_DIAG_BY_FAMILY, make([]byte, 72)), true)
	f.Add(append(netlink(unix.SOCK_DIAG_BY_FAMILY, name), netlink(unix.NLMSG_DONE, nil)...), true)
	f.Add(netlink(unix.NLMSG_ERROR, []byte{0xfe, 0xff, 0xff, 0xff}), false)
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, false)
	f.Fuzz(func(t *testing.T, datagram []byte, dump bool) {
		_, _ = parseNetlink(datagram, dump, func(m []byte) {
			parseInetDiag(m)
			parseUnixDiag(m)
		})
		// Whatever a message holds, it is passed on whole, once, and what follows the end is not.
		var got [][]byte
		framed := append(netlink(unix.SOCK_DIAG_BY_FAMILY, datagram), netlink(unix.NLMSG_DONE, nil)...)
		more, err := parseNetlink(append(framed, netlink(unix.SOCK_DIAG_BY_FAMILY, nil)...), dump, func(m []byte) { got = append(got, m) })
		if more || err != nil || len(got) != 1 || !bytes.Equal(got[0], datagram) {
			t.Errorf("% x came as % x (%v, %v)", datagram, got, more, err)
		}
	})
}

func TestParseUnixDiag(t *testing.T) {
	m := make([]byte, 16)
	binary.NativeEndian.PutUint32(m[4:], 4711)
	m = append(m, 7, 0, 0, 0, 0, 'a', 'b', 0)          // NAME "\0ab"
	m = append(m, 12, 0, 4, 0, 3, 0, 0, 0, 9, 0, 0, 0) // RQLEN 3 of 9
	s, ok := parseUnixDiag(m)
	if want := (DiagSocket{Inode: 4711, Name: "@ab", Queue: 3, Limit: 9}); !ok || s != want {
		t.Errorf("got %+v, want %+v", s, want)
	}
	if _, ok := parseUnixDiag(append(m, 200, 0, 0, 0)); ok {
		t.Error("an attribute longer than the message was taken")
	}
}
