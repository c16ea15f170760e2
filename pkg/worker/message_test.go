package worker_test

import (
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/pkg/worker"
)

var ignoreFDs = cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".FDs" }, cmp.Ignore())

func TestParseNotify(t *testing.T) {
	for _, tt := range []struct {
		text string
		want worker.Message
		err  string // part of it
	}{
		{"READY=1", worker.Message{Ready: true, FDPoll: true}, ""},
		{"READY=1\nSTATUS=serving 5 sockets\n", worker.Message{Ready: true, Status: "serving 5 sockets", HasStatus: true, FDPoll: true}, ""},
		{"STATUS=", worker.Message{HasStatus: true, FDPoll: true}, ""},
		{"STATUS=a=b\x1b[31mc", worker.Message{Status: "a=b [31mc", HasStatus: true, FDPoll: true}, ""},
		{"STATUS=\xff\nREADY=1", worker.Message{Ready: true, FDPoll: true}, "not UTF-8"},
		{"STOPPING=1\nERRNO=2", worker.Message{Stopping: true, Errno: 2, FDPoll: true}, ""},
		{"RELOADING=1\nMONOTONIC_USEC=1500000", worker.Message{Reloading: true, Monotonic: 1500 * time.Millisecond, FDPoll: true}, ""},
		{"MAINPID=42\nMAINPID=43", worker.Message{MainPID: 42, FDPoll: true}, ""},
		{"MAINPID=0", worker.Message{FDPoll: true}, "MAINPID"},
		{"MAINPID=99999999999", worker.Message{FDPoll: true}, "MAINPID"},
		{"WATCHDOG=1", worker.Message{Watchdog: "1", FDPoll: true}, ""},
		{"WATCHDOG=trigger\nWATCHDOG_USEC=20", worker.Message{Watchdog: "trigger", WatchdogInterval: 20 * time.Microsecond, FDPoll: true}, ""},
		{"WATCHDOG=2", worker.Message{FDPoll: true}, "WATCHDOG"},
		{"EXTEND_TIMEOUT_USEC=5000000", worker.Message{ExtendTimeout: 5 * time.Second, FDPoll: true}, ""},
		{"EXTEND_TIMEOUT_USEC=18446744073709551615", worker.Message{FDPoll: true}, "microseconds"},
		{"EXTEND_TIMEOUT_USEC=-1", worker.Message{FDPoll: true}, "microseconds"},
		{"FDSTORE=1\nFDNAME=http\nFDPOLL=0", worker.Message{FDStore: true, FDName: "http"}, ""},
		{"FDSTORE=1\nFDNAME=a:b", worker.Message{FDStore: true, FDPoll: true}, "FDNAME"},
		{"FDSTOREREMOVE=1\nFDNAME=x", worker.Message{FDStoreRemove: true, FDName: "x", FDPoll: true}, ""},
		{"BARRIER=1", worker.Message{Barrier: true, FDPoll: true}, ""},
		{"READY=0", worker.Message{FDPoll: true}, ""},
		{"READY=yes", worker.Message{FDPoll: true}, "READY"},
		{"X_STATE=3\nREADY=1", worker.Message{Ready: true, FDPoll: true, Unknown: []string{"X_STATE"}}, ""},
		{"nonsense\nREADY=1", worker.Message{Ready: true, FDPoll: true}, `"nonsense"`},
		{"=1", worker.Message{FDPoll: true}, "no assignment"},
		{"", worker.Message{FDPoll: true}, "empty"},
	} {
		got, err := worker.ParseNotify([]byte(tt.text))
		if diff := cmp.Diff(tt.want, got, ignoreFDs); diff != "" {
			t.Errorf("%q: %s", tt.text, diff)
		}
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%q: %v, want %q", tt.text, err, tt.err)
		}
	}
}

func FuzzParseNotify(f *testing.F) {
	for _, s := range []string{"", "READY=1", "READY=1\nSTATUS=x\nMAINPID=1\nWATCHDOG=trigger", "FDSTORE=1\nFDNAME=a\nFDPOLL=0",
		"BARRIER=1", "A\nB=\n=C\n\n", "EXTEND_TIMEOUT_USEC=9223372036854775807", "STATUS=\x00\x1b\xc2\x9b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, _ := worker.ParseNotify(data)
		if strings.ContainsFunc(m.Status, unicode.IsControl) {
			t.Errorf("status %q has control characters", m.Status)
		}
		if m.MainPID < 0 || m.ExtendTimeout < 0 || m.WatchdogInterval < 0 || m.Monotonic < 0 || m.Errno < 0 {
			t.Errorf("negative number in %+v", m)
		}
		if len(m.FDName) > 255 || strings.ContainsAny(m.FDName, ":\n") {
			t.Errorf("impossible name %q", m.FDName)
		}
		if m.FDs != nil {
			t.Error("descriptors out of nowhere")
		}
	})
}
