package supervisor_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// More drains than handoff.max_draining: the oldest is escalated.
func TestMaxDraining(t *testing.T) {
	t.Parallel()
	s := newService(t, "[handoff]\nmax_draining = 2\n[drain]\ndivert = \"none\"\ntimeout = \"1h\"\nescalate = [\"SIGKILL\"]\n")
	s.arguments("-ignore-term")
	s.start()
	load := s.load()
	for range 4 {
		if r, err := s.try(false); err != nil || !r.OK {
			t.Fatal(r, err)
		}
	}
	s.eventually(func() string {
		states := ""
		for _, g := range s.status().Generations {
			states += g.State + " "
		}
		if states != "serving draining draining gone gone " {
			return states
		}
		return ""
	})
	gens := s.status().Generations
	for _, g := range gens[3:] {
		if !strings.Contains(g.Exit, "SIGKILL") {
			t.Errorf("generation %d: %q", g.N, g.Exit)
		}
	}
	if len(s.processes()) != 3 {
		t.Errorf("processes: %v", s.processes())
	}
	load.endAfter(2) // those two shared the socket and accepted to the end
}

// WATCHDOG=trigger asks for a replacement at once, and the worker may ask for more time to become ready.
func TestWorkerAsks(t *testing.T) {
	t.Parallel()
	ready := "[ready]\nwhen = [\"notify\"]\ntimeout = \"5s\"\n"
	s := newService(t, ready)
	s.start()
	s.settled()
	s.say(1, "WATCHDOG=trigger")
	if st := s.status(); st.State != "serving" || len(st.Generations) != 1 {
		t.Errorf("a worker without a watchdog is replaced: %+v", st)
	}
	s.stop()
	s.barrier()
	s.manager.Stop()
	s.configure(ready + fmt.Sprintf("[worker]\nwatchdog = \"1h\"\ncommand = [%q, \"-args\", %q]\n", workerProgram, s.argsFile()))
	s.start()
	s.settled()
	s.say(1, "WATCHDOG=trigger")
	s.eventually(func() string {
		if _, n := s.serving(); n != 2 {
			return "it is not replaced"
		}
		return ""
	})
	s.settled()
	goOn := s.paused()
	done := make(chan string, 1)
	go func() {
		r, err := s.try(true)
		done <- fmt.Sprint(r.Error, err)
	}()
	s.underWay()
	began := time.Now()
	s.say(3, "EXTEND_TIMEOUT_USEC=60000000")
	s.eventually(func() string { // longer than ready.timeout
		if over := time.Since(began); over < 6*time.Second {
			return fmt.Sprintf("only %s have passed", over)
		}
		return ""
	})
	goOn()
	if text := <-done; text != "<nil>" {
		t.Error("the time was not extended: ", text)
	}
	s.settled()
	s.stop()
}

// Everything about the sockets changes from reload to reload, and no port is ever without an answer.
func TestChangesOfConfiguration(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	load := s.load()
	drain := "[drain]\ntimeout = \"5s\"\nsettle = \"20ms\"\ndivert = "
	for _, extra := range []string{
		drain + "\"none\"\n", drain + "\"fence\"\n", "", drain + "\"steer\"\n", drain + "\"none\"\n", "",
		"[handoff]\norder = \"signal-first\"\n", "",
		"[handoff]\nfetch = \"pidfd\"\n", "[handoff]\nfetch = \"pidfd\"\n", "[handoff]\nfetch = \"pidfd\"\n", "",
	} {
		s.configure(extra)
		s.reload()
		s.settled()
		s.reload()
		s.settled()
	}
	load.end()
	if f := s.fds(); len(f.Sockets) != 1 {
		t.Errorf("held: %+v", f.Sockets)
	}
	s.stop()
}

// A changed address is another socket: the new one answers, the old one refuses.
func TestAddressChanges(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	before := s.addr
	s.addr = strings.Replace(s.addr, ":8080", ":8081", 1)
	s.configure("")
	s.reload()
	if answer, err := ask(s.addr); err != nil {
		t.Error("the new address: ", answer, err)
	}
	if answer, err := ask(before); err == nil {
		t.Error("the old address still answers: ", answer)
	}
	f := s.fds()
	if len(f.Sockets) != 1 || f.Sockets[0].Address != s.addr {
		t.Errorf("held: %+v", f.Sockets)
	}
	s.barrier()
	if n := len(s.manager.Names()); n != 5 {
		t.Errorf("stored: %v", s.manager.Names())
	}
	s.stop()
}

// usage is what must not grow; rss is in KiB.
type usage struct{ descriptors, threads, rss, entries, processes int }

func (s *service) usage() (u usage) {
	s.t.Helper()
	proc := fmt.Sprintf("/proc/%d/", s.daemon.PID())
	entries, err := os.ReadDir(proc + "fd")
	if err != nil {
		s.t.Fatal(err)
	}
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		s.t.Fatal(err)
	}
	field := func(key string) int {
		_, rest, _ := strings.Cut(string(status), "\n"+key+":")
		n, _ := strconv.Atoi(strings.Fields(rest)[0])
		return n
	}
	s.barrier()
	return usage{len(entries), field("Threads"), field("VmRSS"), len(s.manager.Names()), len(s.processes())}
}

// Three hundred reloads, every tenth of which fails, leave nothing behind.
func TestManyReloads(t *testing.T) {
	t.Parallel()
	s := newService(t, "[drain]\nsettle = \"0s\"\ntimeout = \"5s\"\n[ready]\nwhen = [\"notify\"]\n")
	s.start()
	s.settled()
	reloads := func(n int) usage {
		for i := range n {
			if i%10 == 9 {
				s.arguments("-exit=1")
				s.reloadFails()
				s.arguments()
				continue
			}
			s.reload()
		}
		s.settled()
		return s.usage()
	}
	before := reloads(60)
	began := time.Now()
	after := reloads(240)
	t.Logf("before: %+v, after: %+v, %s for each reload", before, after, time.Since(began)/240)
	s.eventually(func() string { // a client that has gone, or memory that is to be given back, may count for a moment
		if after.descriptors > before.descriptors || after.entries != before.entries || after.processes != 1 ||
			after.threads > before.threads+8 || after.rss > before.rss*5/4+8<<10 {
			after = s.usage()
			return fmt.Sprintf("before: %+v, after: %+v", before, after)
		}
		return ""
	})
	s.stop()
}
