package getsocks

import (
	"bytes"
	"strings"
	"testing"
)

func FuzzMetadata(f *testing.F) {
	for _, seed := range []string{
		"", "\x00", "\x00\x00\x00\x00\x00\x00", "\x00\x02lo\x00\x00\x00\x00", "\x04raha\x00\x84\x00\x00\x00",
		"\xff" + strings.Repeat("n", 255) + "\xff" + strings.Repeat("i", 255) + "\x00\x00\x00\x00",
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "\xff\x00", "\x01\x00\x01\x00\x00\x00\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for {
			r, rest, ok := cutRecord(b)
			if !ok {
				break
			}
			size := len(b) - len(rest)
			if size != minRecord+len(r.namespace)+len(r.iface) || size > maxRecord {
				t.Fatalf("record %+v took %d bytes", r, size)
			}
			again, err := appendRecord(nil, Socket{Namespace: r.namespace, Interface: r.iface})
			if err != nil || !bytes.Equal(again[:size-4], b[:size-4]) {
				t.Fatalf("%+v is written as % x (%v), not % x", r, again, err, b[:size])
			}
			b = rest
		}
		// What is not a record yet can still become one.
		if len(b) >= maxRecord {
			t.Fatalf("%d bytes are no record", len(b))
		}
	})
}
