//go:build fault

package supervisor_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// killNew is the action that kills the generation, until the daemon has noticed.
func (s *service) killNew(generation int) string {
	return fmt.Sprintf("exec grep -lzs '^SUPERVISOR_GENERATION=%s/%d$' /proc/[0-9]*/environ | cut -d/ -f3 | while read pid; do kill -9 $pid; while test -e /proc/$pid; do sleep 0.01; done; done", s.name, generation)
}

// The new worker dies when it is known what it listens on: memory and FD store are as they were.
func TestNewWorkerDiesBeforeSwitch(t *testing.T) {
	t.Parallel()
	s := faulty(t, "start-first")
	fetch := "[handoff]\nfetch = \"pidfd\"\n[drain]\nsettle = \"10ms\"\n[[socket]]\nname = \"http\"\nlisten = \"ADDR\"\n"
	s.configure(fetch + fmt.Sprintf("[[socket]]\nname = \"two\"\nlisten = %q\n[[socket]]\nname = \"path\"\nlisten = \"unix:%s/path\"\n", s.other(8081), s.dir))
	s.start()
	s.barrier()
	held, names := s.fds(), s.manager.Names()
	s.configure(fetch)
	s.arguments("-bind=tcp:" + s.other(8082))
	s.arm("before switch", s.killNew(2))
	if message := s.reloadFails(); !strings.Contains(message, "switch failed") {
		t.Error(message)
	}
	if !s.disarm() {
		t.Error("nothing was killed")
	}
	if diff := cmp.Diff(held, s.fds()); diff != "" {
		t.Errorf("held: %s", diff)
	}
	s.barrier()
	if diff := cmp.Diff(names, s.manager.Names()); diff != "" {
		t.Errorf("store: %s", diff)
	}
	for _, addr := range []string{s.addr, s.other(8081)} {
		if answer, err := ask(addr); err != nil || !strings.Contains(answer, "gen=1") {
			t.Errorf("%s: %q, %v", addr, answer, err)
		}
	}
	if conn, err := net.Dial("unix", s.dir+"/path"); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
	if answer, err := ask(s.other(8082)); err == nil {
		t.Errorf("the dead worker's address answers %q", answer)
	}
	s.stop()
}
