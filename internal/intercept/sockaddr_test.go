package intercept

import (
	"net/netip"
	"testing"
)

func FuzzParseSockaddr(f *testing.F) {
	f.Add([]byte{2, 0, 0, 80, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{10, 0, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0})
	f.Add([]byte{1, 0, '/', 'x'})
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := parseSockaddr(b)
		if ok != a.IsValid() {
			t.Errorf("%v, %v", a, ok)
		}
	})
}

func TestParseSockaddr(t *testing.T) {
	got, ok := parseSockaddr([]byte{2, 0, 0x1f, 0x90, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	if want := netip.MustParseAddrPort("10.0.0.1:8080"); !ok || got != want {
		t.Errorf("%v, %v, want %v", got, ok, want)
	}
	if _, ok := parseSockaddr([]byte{2, 0, 0x1f, 0x90, 10, 0, 0, 1}); ok {
		t.Error("a short sockaddr_in is accepted")
	}
}
