package worker

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseStat(t *testing.T) {
	const tail = " 0 0 0 0 0 20 0 3 0 777 1 2 3\n"
	for text, want := range map[string]stat{
		"5 (cat) S 4 5 6 0 -1 4194304 1 2 3" + tail:              {state: 'S', ppid: 4, session: 6, threads: 3, start: 777},
		"5 (a) b) Z 1 1 (S 2) R 4 5 6 0 -1 4194304 1 2 3" + tail: {state: 'R', ppid: 4, session: 6, threads: 3, start: 777},
		"9 (kworker/0:1) I 2 0 0 0 -1 69238880 1 2 3" + tail:     {state: 'I', ppid: 2, threads: 3, start: 777, kernel: true},
	} {
		got, err := parseStat([]byte(text))
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(stat{})); diff != "" || err != nil {
			t.Errorf("%q: %v %s", text, err, diff)
		}
	}
	for _, text := range []string{"", ")", "5 (x) S", "5 (x) S a b c" + tail, "5 (x) S 4 5 6 0 -1 x 1 2 3" + tail} {
		if _, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q was understood", text)
		}
	}
	self, err := readStat(os.Getpid(), nil)
	if err != nil || self.ppid != os.Getppid() || self.start == 0 || self.kernel || self.dead() {
		t.Errorf("%+v, %v", self, err)
	}
}

// A pid that was given to another process is never taken for the member.
func TestMemberOfReusedPID(t *testing.T) {
	self, err := readStat(os.Getpid(), nil)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := member{self.pid, self.start}.open()
	if err != nil {
		t.Fatal(err)
	}
	fd.Close()
	if _, err := (member{self.pid, self.start - 1}).open(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("another process of the same pid: %v", err)
	}
}

// Whatever a process is called, its numbers are the kernel's; and no text is understood without its start.
func FuzzParseStat(f *testing.F) {
	f.Add([]byte("5 (a) b) S 4 5 6 0 -1 4194304 1 2 3 0 0 0 0 0 20 0 3 0 777 1 2 3\n"), 4, 6, 3, uint64(777))
	f.Add([]byte("cat) Z 1 1 ("), -1, 0, 1, uint64(1<<63))
	f.Fuzz(func(t *testing.T, data []byte, ppid, session, threads int, start uint64) {
		if st, err := parseStat(data); err != nil && st.start != 0 {
			t.Errorf("%q: %+v beside %v", data, st, err)
		}
		text := fmt.Sprintf("5 (%s) S %d 5 %d 0 -1 2097152 1 2 3 0 0 0 0 0 20 0 %d 0 %d 1 2 3\n", data, ppid, session, threads, start)
		want := stat{ppid: ppid, session: session, threads: threads, state: 'S', kernel: true, start: start}
		if got, err := parseStat([]byte(text)); got != want || err != nil {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	})
}
