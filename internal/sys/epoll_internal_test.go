package sys

import (
	"slices"
	"testing"
)

func TestParseEpollInfo(t *testing.T) {
	const info = "pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t2058\n" +
		"tfd:        5 events: 80002019 data:     7f0000000005  pos:0 ino:2b1c sdev:8\n" +
		"tfd:       17 events:       19 data: ffffffff00000011  pos:0 ino:2b1d sdev:8\n" +
		"tfd: nonsense events: 19 data: 0 pos:0 ino:1 sdev:8\n"
	want := []EpollEntry{{5, 0x80002019, 0x7f0000000005, 0x2b1c}, {17, 0x19, 0xffffffff00000011, 0x2b1d}}
	if got := parseEpollInfo([]byte(info)); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func FuzzParseEpollInfo(f *testing.F) {
	f.Add([]byte("tfd: 5 events: 19 data: 5  pos:0 ino:2b1c sdev:8\n"))
	f.Add([]byte("tfd: ino: data: events:"))
	f.Fuzz(func(t *testing.T, info []byte) {
		for _, e := range parseEpollInfo(info) {
			if e.Number < 0 {
				t.Errorf("negative descriptor number %d", e.Number)
			}
		}
	})
}
