package supervisor_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/sys"
)

// pushes has generation n store a blob with that content under name.
func (s *service) pushes(n int, name, content string) {
	s.t.Helper()
	fd := s.memfd(content)
	defer fd.Close()
	s.say(n, "FDSTORE=1\nFDNAME="+name, fd.Num())
}

// pushed are the blobs in the store, "NAME CONTENT".
func (s *service) pushed() (list []string) {
	s.t.Helper()
	s.barrier()
	for _, e := range s.manager.Entries() {
		if !strings.HasPrefix(e.Name, "supervisor.pushed") {
			continue
		}
		data, err := sys.ReadMemfd(e.FD.Num(), 100)
		if err != nil {
			s.t.Fatal(err)
		}
		list = append(list, e.Name[strings.LastIndexByte(e.Name, '.')+1:]+" "+string(data))
	}
	slices.Sort(list)
	return list
}

func (s *service) checkPushed(want ...string) {
	s.t.Helper()
	if diff := cmp.Diff(want, s.pushed()); diff != "" {
		s.t.Error(diff)
	}
}

// last is the newest generation and its worker.
func (s *service) last() (n, pid int) {
	s.t.Helper()
	g := s.status().Generations[0]
	return g.N, g.PID
}

// What a generation pushes and removes while it starts holds when it serves, and not before; if it comes to nothing all is
// as it was. That is so, too, if the supervisor dies meanwhile.
func TestPushWhileStarting(t *testing.T) {
	t.Parallel()
	for _, fails := range []bool{true, false} {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprintf("fails=%v killed=%v", fails, killed), func(t *testing.T) {
				t.Parallel()
				s := newService(t, "")
				s.start()
				s.settled()
				s.pushes(1, "state", "old")
				s.pushes(1, "other", "kept")
				both, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
				if err != nil {
					t.Fatal(err)
				}
				defer both.Close()
				s.say(1, "FDSTORE=1\nFDNAME=both", both.Num())
				goOn := s.paused()
				result := make(chan error, 1)
				go func() {
					r, err := s.try(false)
					if err == nil && r.OK == fails {
						err = fmt.Errorf("%+v", r)
					}
					result <- err
				}()
				s.underWay()
				n, pid := s.last()

				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				addr := l.Addr().String()
				file, err := l.(*net.TCPListener).File()
				if err != nil {
					t.Fatal(err)
				}
				s.say(n, "FDSTORE=1\nFDNAME=mine", int(file.Fd()))
				file.Close()
				l.Close() // but for what the supervisor holds
				s.pushes(n, "state", "first")
				s.pushes(n, "state", "new")
				s.pushes(n, "gone", "soon")
				s.say(n, "FDSTOREREMOVE=1\nFDNAME=gone\fFDSTOREREMOVE=1\nFDNAME=other\fFDSTOREREMOVE=1\nFDNAME=both")
				s.checkPushed("other kept", "state new", "state old") // the barrier is answered: all of it is stored
				s.pushes(1, "state", "newer")
				s.checkPushed("other kept", "state new", "state newer")
				if killed {
					s.kill()
					<-result
					s.launch()
				}
				if fails {
					if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
						t.Fatal(err)
					}
				}
				goOn()
				if killed {
					s.ready()
				} else if err := <-result; err != nil {
					t.Fatal(err)
				}
				want, reachable := []string{"state new"}, true
				entries := []string{"supervisor.socket.mine"}
				if fails {
					want, reachable = []string{"other kept", "state newer"}, false
					entries = []string{"supervisor.socket.both"}
				}
				s.eventually(func() string { return cmp.Diff(want, s.pushed()) })
				s.eventually(func() string {
					names := slices.DeleteFunc(s.manager.Names(), func(name string) bool {
						return !strings.HasPrefix(name, "supervisor.socket.") || name == "supervisor.socket.http"
					})
					return cmp.Diff(entries, names)
				})
				conn, err := net.Dial("tcp", addr)
				if err == nil {
					conn.Close()
				}
				if (err == nil) != reachable {
					t.Errorf("the listener that generation %d pushed: %v", n, err)
				}
				s.arguments()
				s.reload()
				s.checkPushed(want...)
				s.stop()
			})
		}
	}
}

// A generation that drains neither replaces nor removes what a newer one stored; what it stores itself is its own.
func TestPushOfOlderGeneration(t *testing.T) {
	t.Parallel()
	s := newService(t, "[drain]\nsettle = \"20ms\"\ntimeout = \"60s\"\n")
	drains := s.paused() // only that there is the file
	s.arguments("-drain-while=" + s.dir + "/paused")
	s.start()
	s.settled()
	blob := s.memfd("both")
	defer blob.Close()
	s.say(1, "FDSTORE=1\nFDNAME=both", blob.Num())
	s.pushes(1, "state", "1")
	if r, err := s.try(false); err != nil || !r.OK {
		t.Fatal(r, err)
	}
	s.say(2, "FDSTORE=1\nFDNAME=both", blob.Num()) // as it received it
	s.checkPushed("both both", "state 1")
	s.pushes(1, "state", "1 again")
	s.pushes(2, "state", "2")
	s.pushes(1, "state", "1 late")
	s.say(1, "FDSTOREREMOVE=1\nFDNAME=state\fFDSTOREREMOVE=1\nFDNAME=both")
	s.pushes(1, "farewell", "1")
	s.checkPushed("both both", "farewell 1", "state 2")
	if !strings.Contains(s.log(), "generation 2 has stored it since") {
		t.Error("nothing tells why")
	}
	s.kill()
	s.start()
	s.say(1, "FDSTOREREMOVE=1\nFDNAME=state\fFDSTOREREMOVE=1\nFDNAME=farewell")
	s.checkPushed("both both", "state 2")
	if len(s.warnings()) > 0 {
		t.Errorf("warnings: %q", s.warnings())
	}
	drains()
	s.eventually(func() string { return cmp.Diff(1, len(s.processes())) })
	s.say(2, "FDSTOREREMOVE=1\nFDNAME=state\fFDSTOREREMOVE=1\nFDNAME=both")
	s.settled()
	s.stop()
}

// What a worker says of what it does is shown.
func TestWorkerSaysWhatItDoes(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	for _, c := range []struct{ message, note string }{
		{"RELOADING=1\nMONOTONIC_USEC=1", "says that it is reloading"}, {"READY=1", ""}, {"STOPPING=1", "says that it is stopping"},
	} {
		s.say(1, c.message)
		if g := s.status().Generations[0]; g.Note != c.note || g.State != "serving" {
			t.Errorf("after %q: %s, %q", c.message, g.State, g.Note)
		}
	}
	s.stop()
}
