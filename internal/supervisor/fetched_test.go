package supervisor_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/control"
)

// fetched is a service whose sockets are fetched from its worker: how it gets them again, and what it binds.
type fetched struct {
	*service
	binds bool // by its own bind(2), otherwise from LISTEN_FDS
	specs []string
}

const fetchPidfd = unitOnly + "[handoff]\nfetch = \"pidfd\"\n"

// newFetched starts the first generation.
func newFetched(t *testing.T, binds bool, specs func(s *service) []string) *fetched {
	f := &fetched{newService(t, ""), binds, nil}
	f.specs = specs(f.service)
	f.ready("")
	f.arguments(bindArgs(f.specs)...)
	f.start()
	f.next()
	return f
}

func bindArgs(specs []string) (args []string) {
	for _, spec := range specs {
		args = append(args, "-bind="+spec)
	}
	return args
}

// ready sets the configuration, with these lines for a newcomer that will fail, or none.
func (f *fetched) ready(lines string) {
	f.t.Helper()
	text := fetchPidfd
	if lines != "" {
		text += "[ready]\nwhen = [\"listening\"]\n" + lines + "[drain]\ntimeout = \"100ms\"\n" // one that hangs ignores the signal
	}
	if f.binds {
		text += fmt.Sprintf("[worker]\nsockets = [\"bind\"]\ncommand = [%q, \"-generation\", \"${generation}\", \"-args\", %q]\n", workerProgram, f.argsFile())
	}
	f.configure(text)
}

// next sets what the next generation does.
func (f *fetched) next(args ...string) {
	f.t.Helper()
	if f.binds {
		args = append(bindArgs(f.specs), args...)
	}
	f.arguments(args...)
}

// askUDP returns the answer to one datagram.
func askUDP(addr string) (string, error) {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(limit))
	if _, err := conn.Write([]byte("x")); err != nil {
		return "", err
	}
	buf := make([]byte, 100)
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}

// rest waits until one generation serves and nothing is left of any other.
func (f *fetched) rest() (pid, generation int) {
	f.t.Helper()
	f.eventually(func() string {
		pid, generation = f.serving()
		for _, g := range f.status().Generations {
			if g.N != generation && g.State != "gone" {
				return fmt.Sprintf("generation %d is %s", g.N, g.State)
			}
		}
		return cmp.Diff([]int{pid}, f.processes())
	})
	return pid, generation
}

// held is what is held, without those that have it open.
func (f *fetched) held() []control.Held {
	f.t.Helper()
	list := f.fds().Sockets
	for i := range list {
		list[i].Holders = nil
	}
	return list
}

// A newcomer that has the fetched sockets and does not serve on them is not ready: the old worker serves on.
func TestFetchedNewcomerDoesNotServe(t *testing.T) {
	t.Parallel()
	tcp := func(s *service) []string { return []string{"tcp:" + s.addr, "tcp:" + s.other(8081)} }
	udp := func(s *service) []string { return []string{"udp:" + s.addr} }
	for _, c := range []struct {
		name  string
		binds bool
		specs func(s *service) []string
		hangs string // what is said of one that hangs at its start
	}{
		{"LISTEN_FDS", false, tcp, "does not listen on socket \"tcp-"},
		{"bind", true, tcp, "it listens on nothing"},
		{"LISTEN_FDS, UDP", false, udp, "does not listen on socket \"udp-"},
		{"bind, UDP", true, udp, "it listens on nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFetched(t, c.binds, c.specs)
			pid, n := f.rest()
			held := f.held()
			if len(held) != len(f.specs) || held[0].Origin != "fetched" {
				t.Fatalf("held: %+v", held)
			}
			isUDP := strings.HasPrefix(f.specs[0], "udp:")
			var load *clients
			if !isUDP {
				load = f.load()
			}
			for _, newcomer := range []struct {
				name, ready string
				args        []string
				words       []string
			}{
				{"hangs", "timeout = \"300ms\"\n", []string{"-hang"}, []string{"ready failed", c.hangs}},
				{"never accepts", "timeout = \"1s\"\n", []string{"-ignore-sockets"}, []string{"ready failed", "does not listen on socket"}},
				{"dies", "stable = \"10s\"\n", []string{"-ready-then-die=500ms"}, []string{"ready failed", "exit code 1"}},
			} {
				f.ready(newcomer.ready)
				f.next(newcomer.args...)
				message := f.reloadFails()
				for _, w := range append(newcomer.words, fmt.Sprintf("generation %d (pid %d) keeps serving", n, pid)) {
					if !strings.Contains(message, w) {
						t.Errorf("%s: %q does not say %q", newcomer.name, message, w)
					}
				}
				if now, _ := f.rest(); now != pid {
					t.Errorf("%s: worker %d became %d", newcomer.name, pid, now)
				}
				if diff := cmp.Diff(held, f.held()); diff != "" {
					t.Errorf("%s: held: %s", newcomer.name, diff)
				}
				asking := ask
				if isUDP {
					asking = askUDP
				}
				if answer, err := asking(f.addr); err != nil || !strings.HasPrefix(answer, fmt.Sprintf("pid=%d gen=1", pid)) {
					t.Errorf("%s: %q, %v", newcomer.name, answer, err)
				}
			}
			f.ready("")
			f.next()
			f.reload()
			f.rest()
			if diff := cmp.Diff(held, f.held()); diff != "" {
				t.Errorf("held after a reload: %s", diff)
			}
			if load != nil {
				load.endAfter(1) // the one that died had accepted
			}
			f.stop()
		})
	}
}

// A newcomer that leaves a fetched socket out is ready without it: the socket is closed, and clients are refused. One that
// has it open all the same would let them wait.
func TestFetchedSocketLeftOut(t *testing.T) {
	t.Parallel()
	for _, binds := range []bool{false, true} {
		t.Run(map[bool]string{false: "LISTEN_FDS", true: "bind"}[binds], func(t *testing.T) {
			t.Parallel()
			f := newFetched(t, binds, func(s *service) []string { return []string{"tcp:" + s.addr, "tcp:" + s.other(8081)} })
			held := f.held()
			load := f.load()
			if !binds {
				f.ready("timeout = \"1s\"\n")
				f.next("-idle=" + f.other(8081))
				if message := f.reloadFails(); !strings.Contains(message, "does not listen on socket \"tcp-"+strings.Replace(f.other(8081), ":", "_", 1)) {
					t.Error(message)
				}
				f.rest()
				if diff := cmp.Diff(held, f.held()); diff != "" {
					t.Errorf("held: %s", diff)
				}
				f.ready("")
			}
			if answer, err := ask(f.other(8081)); err != nil {
				t.Errorf("before it is left out: %q, %v", answer, err)
			}
			f.specs = f.specs[:1]
			f.next("-close=" + f.other(8081))
			f.reload()
			f.rest()
			if diff := cmp.Diff(held[:1], f.held()); diff != "" {
				t.Errorf("held: %s", diff)
			}
			if answer, err := ask(f.other(8081)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("the socket that was left out: %q, %v", answer, err)
			}
			f.next()
			f.reload()
			load.end()
			f.stop()
		})
	}
}

// A Unix socket that each generation makes anew at the same path, and one in its own directory, stay its own: what is held
// does not grow.
func TestAdminSocketOfEachGeneration(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	admin := s.dir + "/admin"
	s.configure(fetchPidfd + fmt.Sprintf("[worker]\ncommand = [%q, \"-generation\", \"${generation}\", \"-bind=unix:%s\", \"-idle=%[2]s\", \"-bind=unix:${dir}/own\", \"-args\", %q]\n",
		workerProgram, admin, s.argsFile()))
	s.arguments("-bind=tcp:" + s.addr)
	s.start()
	s.arguments()
	load := s.load()
	last := uint64(0)
	for n := 1; n <= 4; n++ {
		s.alone()
		held := s.fds().Sockets
		if len(held) != 2 || held[0].Address != s.addr || held[1].Address != admin || held[1].Inode == last {
			t.Fatalf("generation %d: held %+v", n, held)
		}
		last = held[1].Inode
		if conn, err := net.Dial("unix", admin); err != nil {
			t.Error(err)
		} else {
			conn.Close()
		}
		if n == 3 {
			s.kill()
			s.start()
		}
		s.reload()
	}
	if err := os.Remove(admin); err != nil {
		t.Fatal(err)
	}
	load.end()
	s.stop()
}

// ownGetsocks configures a worker that binds its sockets and tells them by _getsocks, as HAProxy does.
func (s *service) ownGetsocks() string {
	return fmt.Sprintf(unitOnly+"[worker]\nsockets = [\"systemd\", \"getsocks\"]\ncommand = [%q, \"-generation\", \"${generation}\", \"-getsocks=%[2]s\", \"-args\", %[3]q]\n"+
		"[ready]\nwhen = [\"notify\"]\n[handoff]\ngetsocks = %[2]q\n", workerProgram, s.dir+"/own.sock", s.argsFile())
}

// The pair that becomes of a UDP socket which HAProxy bound is adopted, whichever half its worker has open.
func TestFetchedPairAdopted(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.configure(s.ownGetsocks() + "[drain]\nsettle = \"10ms\"\n")
	s.arguments("-bind=tcp:"+s.addr, "-bind=udp:"+s.addr)
	s.start()
	names := []string{s.addr}
	for n := range 4 {
		pid, _ := s.alone()
		held := s.fds().Sockets
		s.kill()
		s.start()
		if diff := cmp.Diff(held, s.fds().Sockets); diff != "" {
			t.Errorf("held after a kill of the supervisor: %s", diff)
		}
		s.arguments()
		if n == 0 {
			names = append(names, s.other(8081))
			s.arguments("-bind=udp:" + s.other(8081)) // by the generation of the other slot
		}
		for _, name := range names[:min(n+1, len(names))] {
			if answer, err := askUDP(name); err != nil || !strings.HasPrefix(answer, fmt.Sprintf("pid=%d ", pid)) {
				t.Errorf("%s: %q, %v, want pid %d", name, answer, err, pid)
			}
		}
		s.reload()
	}
	s.alone()
	if list := s.fds().Sockets; len(list) != 3 {
		t.Errorf("held: %+v", list)
	}
	s.stop()
}
