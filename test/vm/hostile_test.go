//go:build vm

package vm

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/test/load"
)

// Broken and lying input gives one clear error and loses nothing.
var _ = scenario("l-twelve-mistakes", func(t *testing.T, m *Machine) {
	m.WriteFile("/etc/supervisor/wrong.toml", `[worker]
comand = ["/usr/bin/worker"]
directory = 7
sockets = ["systmd"]

[ready]
when = ["sometime"]
timeout = "soon"

[drain]
divert = "left"
signal = "SIGNOTHING"
escalate = ["SIGTERM"]

[handoff]
order = "whenever"
max_draining = -1

[[socket]]
name = "a:b"
listen = "127.0.0.1"

[[socket]]
listen = "tcp:nowhere:99999"
`)
	t.Cleanup(func() { m.Remove("/etc/supervisor/wrong.toml") })
	r := m.Try("supervisor", "check", "/etc/supervisor/wrong.toml")
	if r.Code != 1 {
		t.Errorf("check: exit %d", r.Code)
	}
	for _, line := range []int{2, 3, 4, 7, 8, 11, 12, 13, 16, 17, 20, 21} {
		if !strings.Contains(r.Stderr, fmt.Sprintf("wrong.toml:%d: ", line)) {
			t.Errorf("check does not tell the mistake in line %d:\n%s", line, r.Stderr)
		}
	}
})

// Clients of the control socket that send garbage, send nothing or never read disturb nobody.
var _ = scenario("l-control-clients", func(t *testing.T, m *Machine) {
	s := m.service("ctrl", goWorker("ctrl", socketTable("http", "127.0.0.1:6700")), "")
	s.arguments()
	s.start()
	s.underLoad("l rude control clients", tcp(6700), map[load.Class]int{load.New: 2}, func() {
		for i, garbage := range []string{"", "\n", "x", strings.Repeat("x", 1<<20), "{}\n", `{"v":1,"op":"reload"}`, `{"v":99,"op":"status"}` + "\n", "\x00\xff\n"} {
			conn, err := m.Dial(context.Background(), "unix", "/run/supervisor/ctrl/control.sock")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
			_, _ = io.WriteString(conn, garbage)
			if i%2 == 0 {
				conn.Close()
			}
		}
		// One that asks and never reads.
		conn, err := m.Dial(context.Background(), "unix", "/run/supervisor/ctrl/control.sock")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		for range 1000 {
			if _, err := io.WriteString(conn, `{"v":1,"op":"status"}`+"\n"); err != nil {
				break
			}
		}
		s.reload()
	})
	if state := s.status().State; state != "serving" {
		t.Errorf("state %q", state)
	}
	if r := m.Try("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "supervisor", "status", "ctrl"); r.Code == 0 {
		t.Errorf("another user may ask for the status:\n%s", r.Stdout)
	}
})

// A store that cannot take what must be held fails the reload or the start, and is named.
var _ = scenario("l-full-store", func(t *testing.T, m *Machine) {
	few, many := "", ""
	for i := range 12 {
		if i < 2 {
			few += socketTable(fmt.Sprintf("s%d", i), fmt.Sprintf("127.0.0.1:%d", 6710+i))
		}
		many += socketTable(fmt.Sprintf("s%d", i), fmt.Sprintf("127.0.0.1:%d", 6710+i))
	}
	s := m.service("full", goWorker("full", few), "[Service]\nFileDescriptorStoreMax=10\nRestart=no\n")
	s.arguments()
	s.start()
	stored := s.FDStoreSize(s.unit)
	s.underLoad("l full FD store", tcp(6710), map[load.Class]int{load.New: 2}, func() {
		s.reload()
		s.drained(1)
		old := s.answers("127.0.0.1:6710")
		s.WriteFile(s.config(), goWorker("full", many))
		s.reloadFails("FileDescriptorStoreMax")
		if pid := s.answers("127.0.0.1:6710"); pid != old {
			t.Errorf("worker %d answers after the failed reload, want %d", pid, old)
		}
		s.Eventually(5*time.Second, func() string {
			if n := s.FDStoreSize(s.unit); n != stored {
				return fmt.Sprintf("%d entries in the FD store after the failed reload, before %d", n, stored)
			}
			return ""
		})
		s.WriteFile(s.config(), goWorker("full", few))
		s.reload()
		s.drained(1)
	})
	m.Systemctl("stop", s.unit)
	s.WriteFile(s.config(), goWorker("full", many))
	if r := m.TrySystemctl("start", s.unit); r.Code == 0 {
		t.Error("the service starts although its store cannot take its sockets")
	}
	if journal := s.Journal(s.unit); !strings.Contains(journal, "supervisor: error: cannot start full: ") {
		t.Errorf("no clear sentence about the failed start:\n%s", journal)
	}
})

// A limit of descriptors that is reached fails the reload and costs nothing.
var _ = scenario("l-descriptor-limit", func(t *testing.T, m *Machine) {
	few, many := socketTable("s0", "127.0.0.1:6740"), socketTable("s0", "127.0.0.1:6740")
	for i := range 100 {
		many += socketTable(fmt.Sprintf("more%d", i), fmt.Sprintf("unix:/run/limit-%d.sock", i))
	}
	s := m.service("limit", goWorker("limit", few), "[Service]\nLimitNOFILE=64\n")
	s.arguments()
	s.start()
	before := s.usage()
	s.underLoad("l descriptor limit", tcp(6740), map[load.Class]int{load.New: 2}, func() {
		old := s.answers("127.0.0.1:6740")
		s.WriteFile(s.config(), goWorker("limit", many))
		s.reloadFails("too many open files")
		if pid := s.answers("127.0.0.1:6740"); pid != old {
			t.Errorf("worker %d answers after the failed reload, want %d", pid, old)
		}
		s.WriteFile(s.config(), goWorker("limit", few))
		s.reload()
		s.drained(1)
	})
	if after := s.usage(); after.stored > before.stored+1 || after.descriptors > before.descriptors+4 {
		t.Errorf("after the failed reload and a good one %+v, before %+v", after, before)
	}
})

// A running supervisor that may open one more descriptor at each try comes a little further each time: wherever it meets
// the limit, the reload fails and costs nothing.
var _ = scenario("l-descriptors-run-out", func(t *testing.T, m *Machine) {
	toml := replace(t, quickWorker("runout", "start-first", 6750), "[handoff]", "[handoff]\nfetch = \"pidfd\"")
	s := m.service("runout", toml, "[Service]\nLimitNOFILE=200\n")
	s.arguments("-bind=tcp:127.0.0.1:6751", "-bind=tcp:127.0.0.1:6752")
	s.start()
	s.arguments() // the next generations find them in LISTEN_FDS
	s.reload()
	base, problem := s.quieted(-1, 20*time.Second)
	if problem != "" {
		t.Fatal(problem)
	}
	ports := []int{6750, 6751, 6752}
	inodes, cursor := s.inodesOf(ports), s.Cursor()
	var failed []string // at which step
	s.underLoad("l descriptors run out", tcp(6750), map[load.Class]int{load.New: 2}, func() {
		for free := 1; ; free++ {
			if free > 20 {
				t.Fatalf("no reload succeeds, failed: %v", failed)
			}
			s.allow(free)
			begin, r := time.Now(), s.TrySystemctl("reload", s.unit)
			s.allow(100)
			last := s.handoffSince(begin)
			v, problem := s.quieted(base.stored, 20*time.Second)
			if problem != "" {
				t.Errorf("%d descriptors: %s", free, problem)
			}
			if last.OK != (r.Code == 0) || last.OK != (v.serving().PID != base.serving().PID) {
				t.Errorf("%d descriptors: exit %d, worker %d serves, before %d: %+v", free, r.Code, v.serving().PID, base.serving().PID, last)
			}
			if last.OK {
				break
			}
			failed = append(failed, last.Steps[len(last.Steps)-1].Name)
		}
		s.reload()
	})
	s.drained(1)
	said, sentences := s.JournalAfter(s.unit, cursor), 0
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "supervisor: error: ") && strings.Contains(line, "too many open files") {
			sentences++
		}
	}
	if !slices.Contains(failed, "spawn") || sentences != len(failed) || strings.Count(said, "supervisor: error: ") != sentences {
		t.Errorf("failed at %q, %d sentences tell why:\n%s", failed, sentences, said)
	}
	if !strings.Contains(said, "cannot fetch the sockets of generation") {
		t.Errorf("the limit was never met while the sockets were fetched:\n%s", said)
	}
	if after := s.inodesOf(ports); !slices.Equal(inodes, after) {
		t.Errorf("listening inodes %v, before %v", after, inodes)
	}
})

// allow lets the running supervisor open so many descriptors more.
func (s *service) allow(free int) {
	s.t.Helper()
	pid := s.MainPID(s.unit)
	open := strings.Fields(s.Run("ls", fmt.Sprintf("/proc/%d/fd", pid)))
	limit := 0
	for ; free > 0; limit++ {
		if !slices.Contains(open, strconv.Itoa(limit)) {
			free--
		}
	}
	s.Run("prlimit", fmt.Sprintf("--pid=%d", pid), fmt.Sprintf("--nofile=%d:", limit))
}

// What a wrong parent may pass at start.
var _ = scenario("l-lying-environment", func(t *testing.T, m *Machine) {
	lies := map[string]string{
		"more than there are":   "LISTEN_PID=$$ LISTEN_FDS=5",
		"negative":              "LISTEN_PID=$$ LISTEN_FDS=-1",
		"no number":             "LISTEN_PID=$$ LISTEN_FDS=many",
		"huge":                  "LISTEN_PID=$$ LISTEN_FDS=99999999999999999999",
		"of somebody else":      "LISTEN_PID=1 LISTEN_FDS=2",
		"names do not match":    "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=a:b:c",
		"a file is no listener": "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=a",
	}
	type run struct {
		result <-chan Result
		log    string
		port   int
	}
	runs, port := map[string]run{}, 6720
	for what, environment := range lies {
		name := fmt.Sprintf("lie%d", port)
		m.WriteFile("/etc/supervisor/"+name+".toml", goWorker(name, socketTable("http", fmt.Sprintf("127.0.0.1:%d", port))))
		m.WriteFile("/etc/supervisor/"+name+".args", "")
		log := "/tmp/" + name + ".log"
		t.Cleanup(func() {
			m.Remove("/etc/supervisor/"+name+".toml", "/etc/supervisor/"+name+".args", "/tmp/lie", log, log+".pid")
		})
		runs[what] = run{m.Start("sh", "-c", "echo $$ > "+log+".pid; export "+environment+"; exec supervisor run --runtime-dir /tmp/lie "+name+" 3</etc/hostname 2>"+log), log, port}
		port++
	}
	for what, run := range runs {
		m.Eventually(30*time.Second, func() string {
			if pid, text := m.Worker(fmt.Sprintf("127.0.0.1:%d", run.port)); pid == 0 {
				return what + ": no worker answers: " + text
			}
			return ""
		})
		m.Run("sh", "-c", "kill $(cat "+run.log+".pid)")
		r, said := <-run.result, m.ReadFile(run.log)
		if r.Code != 0 {
			t.Errorf("%s: supervisor run ends with exit code %d:\n%s", what, r.Code, said)
		}
		if what != "of somebody else" && !strings.Contains(said, "LISTEN_") && !strings.Contains(said, "descriptor") {
			t.Errorf("%s: no word about what is wrong:\n%s", what, said)
		}
	}
})

// A worker that lies when it is asked for its sockets, or says nothing, costs no socket and no request: neither the old one,
// which must be replaceable, nor the new one, whose answer decides what is closed.
var _ = scenario("l-lying-getsocks", func(t *testing.T, m *Machine) {
	const admin, foreign = "/run/supervisor/liar/admin.sock", "/run/liar.sock"
	ports := []int{6760, 6761}
	s := m.service("liar", goWorker("liar", socketTable("one", "127.0.0.1:6760")+socketTable("two", "127.0.0.1:6761")+
		fmt.Sprintf("\n[handoff]\ngetsocks = %q\n", admin)), "")
	const unfetchable = "cannot fetch the sockets of generation "
	lies := []struct{ kind, says, warns string }{
		{"few", "the peer closed the connection after 3 of 4 sockets", unfetchable},
		{"many", "the peer announced 2 sockets and sent at least 3", unfetchable},
		{"none", "the peer closed without an answer", unfetchable},
		{"half", "read the number of sockets: unexpected EOF", unfetchable},
		{"zero", "says that it listens on nothing", ""},
		{"pipe", "the peer sent a descriptor that is not a socket", unfetchable},
		{"connection", "it is no listening socket", unfetchable},
		{"silent", "no whole answer within 5s", ""}, // the old one is honest: one wait of 5 s is enough
		// Lists that may be true. The kernel shows that they are not.
		{"short", "", ""},
		{"foreign:unix:" + foreign, "", ""},
	}
	// The generation that serves answers honestly while it starts, and lies when it is to be replaced.
	serveLiar := func(next int) {
		lines := []string{"-getsocks=" + admin}
		if next < len(lies) && lies[next].kind != "silent" {
			lines = append(lines, "-lie="+lies[next].kind, "-lie-after=1")
		}
		s.arguments(lines...)
	}
	serveLiar(0)
	s.start()
	inodes, before := s.inodesOf(ports), s.usage()
	for i, lie := range lies {
		kind, _, _ := strings.Cut(lie.kind, ":")
		t.Run(kind, func(t *testing.T) {
			s := &service{Machine: m.With(t), name: s.name, unit: s.unit}
			same := func(when string) {
				if after := s.inodesOf(ports); !slices.Equal(inodes, after) {
					t.Errorf("listening inodes %v after the %s reload, before %v", after, when, inodes)
				}
			}
			old, cursor := s.answers("127.0.0.1:6761"), s.Cursor()
			s.underLoad("l lying _getsocks, "+kind, tcp(6760), map[load.Class]int{load.New: 2, load.Keep: 1}, func() {
				s.arguments("-getsocks="+admin, "-lie="+lie.kind)
				if lie.says == "" {
					s.reload()
				} else {
					s.reloadFails("reconcile failed", lie.says)
					if pid := s.answers("127.0.0.1:6761"); pid != old {
						t.Errorf("worker %d answers after the failed reload, want %d", pid, old)
					}
				}
				same("lying")
				if said := s.JournalAfter(s.unit, cursor); strings.Contains(said, unfetchable) != (lie.warns != "") {
					t.Errorf("the old worker lied as well; journal:\n%s", said)
				}
				serveLiar(i + 1)
				s.reload()
				same("good")
			})
			s.drained(1)
			if pid := s.answers("127.0.0.1:6761"); pid == old {
				t.Errorf("worker %d still answers after the good reload", pid)
			}
		})
	}
	// Three generations bound a foreign one. The next ones get it, too, and serve it.
	if after := s.usage(); after.stored > before.stored+3 || after.descriptors > before.descriptors+4 {
		t.Errorf("at the end %+v, at the beginning %+v", after, before)
	}
})
