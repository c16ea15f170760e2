package getsocks

import "fmt"

// Sizes of one record of metadata: two length bytes and 4 bytes of options, plus two names of at most 255 bytes.
const (
	minRecord = 1 + 1 + 4
	maxRecord = minRecord + 255 + 255
)

type record struct{ namespace, iface string }

// appendRecord appends the metadata of s to b. The options stay 0, as every HAProxy since 2.3 sends and ignores them.
func appendRecord(b []byte, s Socket) ([]byte, error) {
	for _, name := range []string{s.Namespace, s.Interface} {
		if len(name) > 255 {
			return b, fmt.Errorf("name of %d bytes, more than 255: %.20q", len(name), name)
		}
		b = append(b, byte(len(name)))
		b = append(b, name...)
	}
	return append(b, 0, 0, 0, 0), nil
}

// cutRecord takes the first record off b; ok is false while b does not hold all of it.
func cutRecord(b []byte) (r record, rest []byte, ok bool) {
	if r.namespace, b, ok = cutName(b); !ok {
		return record{}, nil, false
	}
	if r.iface, b, ok = cutName(b); !ok || len(b) < 4 {
		return record{}, nil, false
	}
	return r, b[4:], true
}

func cutName(b []byte) (name string, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return "", nil, false
	}
	end := 1 + int(b[0])
	return string(b[1:end]), b[end:], true
}
