package supervisor_test

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/supervisor"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// say sends a message with descriptors to the notify socket of a generation as one of its processes: the test binary,
// started again with the generation's marker.
func (s *service) say(generation int, message string, fds ...int) {
	s.t.Helper()
	identity, err := supervisor.Identity(s.runtime())
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := worker.Start(worker.Command{
		Argv:  []string{s.binary, sendCommand, filepath.Join(s.runtime(), "notify", fmt.Sprint(generation)), message},
		Env:   []string{handoff.MarkerOf(s.name, identity, generation), raceOptions},
		Files: append([]int{-1, 2, 2}, fds...),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	<-p.Done()
	if e := p.Exit(); e.Code != 0 {
		s.t.Fatalf("send %q: exit %+v", message, e)
	}
	p.Release()
}

func (s *service) memfd(content string) *sys.FD {
	s.t.Helper()
	fd, err := sys.SealedMemfd("test", []byte(content))
	if err != nil {
		s.t.Fatal(err)
	}
	return fd
}

// What a worker pushes survives the supervisor and reaches the next generation.
func TestPush(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.arguments("-push=blob")
	s.start()
	s.settled("supervisor.pushed.blob")
	s.arguments()
	s.kill()
	s.start()
	s.reload()
	_, n := s.settled("supervisor.pushed.blob")
	if !strings.Contains(s.log(), "(blob) is no socket") {
		t.Error("the next generation did not receive it")
	}
	s.say(n, "FDSTOREREMOVE=1\nFDNAME=blob")
	s.settled()
	s.stop()
}

// Several descriptors of one name are all kept, in their order, and the next message of that name takes their place.
func TestPushSeveral(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.installed()
	s.start()
	s.settled()
	var fds []int
	for i := range 4 {
		fd := s.memfd(fmt.Sprint(i))
		defer fd.Close()
		fds = append(fds, fd.Num())
	}
	entries := []string{"supervisor.pushed-2.conn", "supervisor.pushed-3.conn", "supervisor.pushed.conn"}
	content := func(want ...string) {
		t.Helper()
		var got []string
		for _, e := range s.manager.Entries() {
			if strings.HasPrefix(e.Name, "supervisor.pushed") {
				data, err := sys.ReadMemfd(e.FD.Num(), 10)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, e.Name+" "+string(data))
			}
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	s.say(1, "FDSTORE=1\nFDNAME=conn", fds[:3]...)
	s.settled(entries...)
	s.say(1, "FDSTORE=1\nFDNAME=conn", fds[:3]...) // no change
	content(entries[0]+" 1", entries[1]+" 2", entries[2]+" 0")
	s.kill()
	s.start()
	s.settled(entries...)
	s.reexeced()
	s.reload()
	_, n := s.settled(entries...)
	if got := strings.Count(s.log(), "(conn) is no socket"); got != 3 {
		t.Errorf("the next generation received %d", got)
	}
	content(entries[0]+" 1", entries[1]+" 2", entries[2]+" 0")
	s.say(n, "FDSTORE=1\nFDNAME=conn", fds[1], fds[3])
	s.settled(entries[:2]...)
	content(entries[0]+" 1", entries[1]+" 3")
	s.say(n, "FDSTORE=1\nFDNAME=conn", fds[0])
	s.settled(entries[2])
	content(entries[2] + " 0")
	if len(s.warnings()) > 0 {
		t.Errorf("warnings: %q", s.warnings())
	}
	s.stop()
}

// Two eventfds have the same inode and are not the same.
func TestPushReplacesAnonymous(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	s.settled()
	for range 2 {
		fd, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC, 0)
		if errno != 0 {
			t.Fatal(errno)
		}
		event := sys.NewFD(int(fd))
		defer event.Close()
		s.say(1, "FDSTORE=1\nFDNAME=event", event.Num())
		s.eventually(func() string {
			s.barrier()
			for _, e := range s.manager.Entries() {
				if same, err := sys.SameDescription(e.FD.Num(), event.Num()); err == nil && same {
					return ""
				}
			}
			return "it is not stored"
		})
	}
	s.settled("supervisor.pushed.event")
	s.stop()
}

// A listener goes when that is asked for, and not when something else gets its name.
func TestPushKeepsListener(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	s.settled()
	l, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, b := s.memfd("a"), s.memfd("b")
	defer a.Close()
	defer b.Close()
	for range 2 {
		s.say(1, "FDSTORE=1\nFDNAME=mix", l.Num())
		s.settled("supervisor.socket.mix")
		s.say(1, "FDSTORE=1\nFDNAME=mix", a.Num())
		s.settled("supervisor.socket.mix", "supervisor.pushed.mix")
		s.say(1, "FDSTORE=1\nFDNAME=mix", b.Num(), l.Num())
		s.settled("supervisor.socket.mix", "supervisor.pushed.mix")
		s.say(1, "FDSTOREREMOVE=1\nFDNAME=mix")
		s.settled()
	}
	s.stop()
}

// A message that stores and removes removes, as with systemd, and what came with it is closed.
func TestPushAndRemove(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	s.settled()
	fds := make([]int, 200)
	for i := range fds {
		fd := s.memfd("x")
		defer fd.Close()
		fds[i] = fd.Num()
	}
	before := s.usage().descriptors
	s.say(1, strings.Repeat("FDSTORE=1\nFDSTOREREMOVE=1\nFDNAME=x\f", 3)+"STATUS=done", fds...)
	if after := s.usage().descriptors; after > before+10 {
		t.Errorf("the daemon had %d descriptors open and has %d", before, after)
	}
	s.stop()
}

// What a worker may say as often as it likes costs systemd, the journal and the store little, and its last word holds.
func TestWorkerFloods(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	s.settled()
	fd := s.memfd("x")
	defer fd.Close()
	many := func(n int, message func(i int) string) string {
		var list []string
		for i := range n {
			list = append(list, message(i))
		}
		return strings.Join(list, "\f")
	}
	long := strings.Repeat("ä", 2040)
	for _, c := range []struct {
		name     string
		message  string
		fds      []int
		warnings int
		each     time.Duration // the pause between two groups of messages to systemd, 0 for none at all
		group    int
		last     string
	}{
		{name: "long status", message: many(20, func(i int) string { return fmt.Sprintf("STATUS=%04d%s", i, long) }), each: time.Second, group: 1, last: "STATUS=0019" + long},
		{name: "status", message: many(1000, func(i int) string { return fmt.Sprint("STATUS=", i) }), each: time.Second, group: 1, last: "STATUS=999"},
		{name: "refused", message: many(1000, func(int) string { return "FDSTORE=1\nFDNAME=supervisor.x" }), fds: []int{fd.Num()}, warnings: 1},
		{name: "remove nothing", message: many(1000, func(int) string { return "FDSTOREREMOVE=1\nFDNAME=nothing" })},
		{name: "change", message: many(1000, func(i int) string { return []string{"FDSTORE=1", "FDSTOREREMOVE=1"}[i%2] + "\nFDNAME=x" }), fds: []int{fd.Num()}, each: 100 * time.Millisecond, group: 6},
	} {
		s.barrier()
		messages, warnings, began := len(s.manager.Messages()), len(s.warnings()), time.Now()
		s.say(1, c.message, c.fds...)
		if c.last != "" {
			s.eventually(func() string {
				for _, m := range s.manager.Messages()[messages:] {
					for _, line := range m.Lines {
						if strings.HasPrefix(line, "STATUS=") && strings.HasPrefix(c.last, line) && len(line) > min(len(c.last), 4070)-1 {
							return ""
						}
					}
				}
				return "its last word was not passed on"
			})
		}
		s.barrier()
		messages, warnings = len(s.manager.Messages())-messages, len(s.warnings())-warnings
		allowed := 0
		if c.each > 0 {
			allowed = c.group * (2 + int(time.Since(began)/c.each))
		}
		t.Logf("%s: %d warnings, %d messages in %s", c.name, warnings, messages, time.Since(began))
		if warnings > c.warnings || messages > allowed+1 { // the barrier is one
			t.Errorf("%s: %d warnings, %d messages to systemd, of which %d are allowed", c.name, warnings, messages, allowed)
		}
	}
	s.stop()
}

// When a barrier is answered, the store is as the messages before it ask, also where they come in quick succession.
func TestPushBarrier(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	s.settled()
	for i := range 3 {
		fd := s.memfd(fmt.Sprint(i))
		defer fd.Close()
		s.say(1, fmt.Sprintf("FDSTORE=1\nFDNAME=b%d\fFDSTOREREMOVE=1\nFDNAME=b%d", i+1, i), fd.Num())
		s.barrier()
		stored := slices.DeleteFunc(s.manager.Names(), func(name string) bool { return !strings.HasPrefix(name, "supervisor.pushed.") })
		if want := fmt.Sprint("supervisor.pushed.b", i+1); len(stored) != 1 || stored[0] != want {
			t.Errorf("stored: %q, want %s", stored, want)
		}
	}
	s.stop()
}

// A worker pushes what makes trouble: nothing is lost, and reloads go on.
func TestHostilePushes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		push    func(s *service)
		entries []string
		warning string
	}{
		{"the supervisor's own names", func(s *service) {
			fd := s.memfd(`{"version":1}`)
			defer fd.Close()
			for _, name := range []string{"supervisor.state", "supervisor.worker.1", "supervisor.socket.http"} {
				s.say(1, "FDSTORE=1\nFDNAME="+name, fd.Num())
				s.say(1, "FDSTOREREMOVE=1\nFDNAME="+name)
			}
		}, nil, "supervisor's own"},
		{"one description twice", func(s *service) {
			fd := s.memfd("x")
			defer fd.Close()
			s.say(1, "FDSTORE=1\nFDNAME=a", fd.Num())
			s.say(1, "FDSTORE=1\nFDNAME=b", fd.Num())
		}, []string{"supervisor.pushed.a"}, "kept already"},
		{"one connection twice", func(s *service) {
			a, b, err := sys.Socketpair(1)
			if err != nil {
				s.t.Fatal(err)
			}
			s.say(1, "FDSTORE=1\nFDNAME=a", a.Num())
			s.say(1, "FDSTORE=1\nFDNAME=b", a.Num())
			s.settled("supervisor.pushed.a") // its other end must not hang up before it is stored
			a.Close()
			s.t.Cleanup(func() { b.Close() })
		}, []string{"supervisor.pushed.a"}, "kept already"},
		{"both halves of its own listener", func(s *service) {
			for _, e := range s.manager.Entries() {
				if e.Name == "supervisor.socket.http" || e.Name == "supervisor.alternate.http" {
					s.say(1, "FDSTORE=1\nFDNAME=mine", e.FD.Num())
				}
			}
		}, nil, ""},
		{"thousands", func(s *service) {
			fds := make([]int, 250)
			for i := range fds {
				fd := s.memfd(fmt.Sprint(i))
				defer fd.Close()
				fds[i] = fd.Num()
			}
			var push, remove []string
			for i := range 70 { // more names than are kept
				push = append(push, fmt.Sprint("FDSTORE=1\nFDNAME=many", i))
				remove = append(remove, fmt.Sprint("FDSTOREREMOVE=1\nFDNAME=many", i))
			}
			s.say(1, strings.Join(push, "\f"), fds...)
			s.say(1, strings.Join(remove, "\f"))
		}, nil, "are kept for workers already"},
		{"flood", func(s *service) {
			s.arguments("-flood=5000")
			s.reload()
		}, nil, ""},
		{"nonsense", func(s *service) {
			for _, m := range []string{"x", "=", "FDSTORE=1", "FDSTORE=1\nFDNAME=a:b", "BARRIER=1", "MAINPID=1", "MAINPID=x", strings.Repeat("y", 5000)} {
				s.say(1, m)
			}
		}, nil, "main process is 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, "")
			s.start()
			load := s.load()
			s.settled()
			c.push(s)
			s.reload()
			s.settled(c.entries...)
			s.kill()
			s.start()
			s.reload()
			s.settled(c.entries...)
			load.end()
			if c.warning != "" && len(s.warnings(c.warning)) == 0 {
				t.Errorf("no warning says %q: %q", c.warning, s.warnings())
			}
			if n := len(s.warnings()); n > 100 {
				t.Errorf("%d warnings", n)
			}
			s.stop()
		})
	}
}

// Somebody who is no process of the generation is not listened to.
func TestStrangerNotifies(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	s.settled()
	fd := s.memfd("x")
	defer fd.Close()
	if err := sys.SendTo(filepath.Join(s.runtime(), "notify", "1"), []byte("STATUS=hacked\nFDSTORE=1\nFDNAME=x"), []int{fd.Num()}); err != nil {
		t.Fatal(err)
	}
	s.eventually(func() string {
		if len(s.warnings("does not belong")) == 0 {
			return "no warning"
		}
		return ""
	})
	if g := s.status().Generations[0]; g.Status == "hacked" {
		t.Error("a stranger set the status")
	}
	s.settled()
	s.stop()
}

// The store is full: the reload fails, nothing changes, and with more room the next one works.
func TestStoreFull(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	// One generation needs five entries.
	for _, room := range []int{5, 6} {
		s.manager.SetMax(room)
		s.start()
		pid, _ := s.settled()
		load := s.load()
		for range 2 {
			if message := s.reloadFails(); !strings.Contains(message, "full") || !strings.Contains(message, "keeps serving") {
				t.Error(message)
			}
			if now, _ := s.settled(); now != pid {
				t.Errorf("with room for %d worker %d became %d", room, pid, now)
			}
		}
		load.end()
		s.kill()
		s.manager.SetMax(fdstoreMax)
		s.start()
		s.reload()
		s.settled()
		s.stop()
		s.barrier()
		s.manager.Stop()
	}
}

const fdstoreMax = 512

// Clients of the control socket that send nonsense, say nothing, or do not read, are no trouble for others.
func TestControlGarbage(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	s.settled()
	path := filepath.Join(s.runtime(), control.SocketName)
	var wait sync.WaitGroup
	defer wait.Wait()
	for _, text := range []string{"", "x\n", "{}\n", `{"v":1,"op":"destroy"}` + "\n", `{"v":9,"op":"reload"}` + "\n", strings.Repeat("[", 100000), "\x00\xff\n"} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		wait.Go(func() {
			defer conn.Close()
			conn.Write([]byte(text))
			conn.SetReadDeadline(time.Now().Add(limit))
			line := make([]byte, 4096)
			n, _ := conn.Read(line)
			var e control.Event
			if text != "" && n > 0 && (json.Unmarshal(line[:n], &e) != nil || e.Type != control.TypeError) {
				t.Errorf("%.20q is answered with %q", text, line[:n])
			}
		})
	}
	s.reload()
	s.settled()
	s.stop()
}
