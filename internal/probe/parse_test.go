package probe

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseTarget(t *testing.T) {
	for _, tt := range []struct {
		line  string
		inode uint64
		armed bool
	}{
		{"tfd:        5 events:       19 data: 7f3c00000005  pos:0 ino:1b3c sdev:8\n", 0x1b3c, true},
		{"tfd:        5 events: 80002019 data:                5  pos:0 ino:A sdev:8\n", 0, false}, // the kernel writes small letters
		{"tfd:        5 events: 40000000 data:                5  pos:0 ino:1b3c sdev:8\n", 0, false},
		{"tfd:        5 events:       1c data:                5  pos:0 ino:1b3c sdev:8\n", 0, false},
		{"tfd:        5 events:       40 data:                5  pos:0 ino:ffffffffffffffff sdev:8\n", 1<<64 - 1, true},
		{"tfd:        5 events:        1 data:                5  pos:0 ino:10000000000000000 sdev:8\n", 0, false},
		{"tfd:        5 events:        1\n", 0, false},
		{"tfd: 5 events:", 0, false},
		{"pos:\t0\n", 0, false},
		{"", 0, false},
	} {
		inode, armed := parseTarget([]byte(tt.line))
		if armed != tt.armed || armed && inode != tt.inode {
			t.Errorf("%q: %x %t", tt.line, inode, armed)
		}
	}
}

func TestParseSyscall(t *testing.T) {
	const rest = " 0x3 0x4 0x5 0x6 0x7fff 0x7f00\n"
	accept, poll := -1, -1
	for number, how := range calls {
		switch how {
		case byDescriptor:
			accept = number
		case byPollSet:
			poll = number
		}
	}
	for _, tt := range []struct {
		text string
		how  call
		args [2]uint64
	}{
		{strconv.Itoa(accept) + " 0x7 0x2" + rest, byDescriptor, [2]uint64{7, 2}},
		{strconv.Itoa(poll) + " 0x7ffd00001000 0x2" + rest, byPollSet, [2]uint64{0x7ffd00001000, 2}},
		{"9999 0x7 0x2" + rest, 0, [2]uint64{7, 2}},
		{"running\n", 0, [2]uint64{}},
		{"-1 0x7fff 0x7f00\n", 0, [2]uint64{}},
		{strconv.Itoa(poll) + " zz 0x2" + rest, 0, [2]uint64{}},
		{"", 0, [2]uint64{}},
	} {
		how, args := parseSyscall(tt.text)
		if how != tt.how || args != tt.args {
			t.Errorf("%q: %d %x", tt.text, how, args)
		}
	}
}

// Where the numbers of system calls are not known nobody is called deaf, or taken for one who waits, by those of another
// architecture.
func TestUnknownArchitecture(t *testing.T) {
	for _, arch := range []string{"386", "arm", "mips64le", "ppc64le", "s390x"} {
		if tables[arch] != nil {
			t.Errorf("%s is known", arch)
		}
	}
	known := calls
	defer func() { calls = known }()
	calls = nil
	if err := sleepers(os.Getpid(), map[int]uint64{0: 1}, func(uint64) { t.Error("found") }); err == nil || !strings.Contains(err.Error(), runtime.GOARCH) {
		t.Errorf("an architecture that is not known: %v", err)
	}
}

func TestSets(t *testing.T) {
	// POLLIN on 3, POLLOUT on 4, POLLIN on -1 (ignored by the kernel), POLLRDNORM on 5, half an entry.
	set := []byte{3, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255, 1, 0, 0, 0, 5, 0, 0, 0, 64, 0, 0, 0, 6, 0, 0, 0}
	if diff := cmp.Diff([]int{3, 5}, pollSet(set)); diff != "" {
		t.Error(diff)
	}
	bits := make([]byte, 16)
	bits[0], bits[8] = 1<<3, 1<<1
	if diff := cmp.Diff([]int{3, 65}, selectSet(bits, 66)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int{3}, selectSet(bits, 65)); diff != "" {
		t.Error(diff)
	}
	if got := selectSet(nil, 1000); len(got) != 0 {
		t.Error(got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("tfd:        5 events:       19 data: 7f3c00000005  pos:0 ino:1b3c sdev:8\n")
	f.Add("43 0x7 0x2 0x3 0x4 0x5 0x6 0x7fff 0x7f00\n")
	f.Add("running")
	f.Add("socket:[18446744073709551616]")
	f.Fuzz(func(t *testing.T, text string) {
		if _, armed := parseTarget([]byte(text)); armed && !strings.HasPrefix(text, "tfd:") {
			t.Errorf("target in %q", text)
		}
		if inode, ok := socketInode([]byte(text)); ok && inode == 0 && !strings.ContainsRune(text, '0') {
			t.Errorf("inode of %q", text)
		}
		parseSyscall(text)
		for _, fd := range append(pollSet([]byte(text)), selectSet([]byte(text), len(text))...) {
			if fd < 0 {
				t.Errorf("descriptor %d", fd)
			}
		}
	})
}
