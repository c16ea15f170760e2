//go:build vm

package vm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/test/load"
)

// What administrators do to a service, by mistake too: the port never refuses.
var _ = scenario("f-systemctl", func(t *testing.T, m *Machine) {
	s := m.service("ctl", goWorker("ctl", socketTable("bound", "127.0.0.1:6500")), m.socketUnit("ctl", 6501))
	s.arguments()
	s.start()
	s.administered("f ", 6500, 6501)
})

// The same with a worker that binds by itself, and takes the unit's socket by _getsocks.
var _ = scenario("f-systemctl-haproxy", func(t *testing.T, m *Machine) {
	s := m.haproxy("ctlha", binds("127.0.0.1:6502", "127.0.0.1:6503"))
	m.WriteFile("/etc/systemd/system/"+s.unit+".d/test.conf", m.socketUnit("ctlha", 6503))
	m.Systemctl("daemon-reload")
	s.start()
	if inodes := s.inodesOf([]int{6502, 6503}); len(inodes) != 2 {
		t.Fatalf("listening inodes %v", inodes)
	}
	s.administered("f HAProxy, ", 6502, 6503)
})

// socketUnit starts NAME.socket with a port of 127.0.0.1 and returns the drop-in for the service that takes it.
func (m *Machine) socketUnit(name string, port int) (dropin string) {
	m.t.Helper()
	unit := name + ".socket"
	m.WriteFile("/etc/systemd/system/"+unit, fmt.Sprintf("[Socket]\nListenStream=127.0.0.1:%d\nFileDescriptorName=unit\nService=supervisor@%s.service\n", port, name))
	m.Systemctl("daemon-reload")
	m.t.Cleanup(func() {
		m.TrySystemctl("stop", unit)
		m.Remove("/etc/systemd/system/" + unit)
	})
	m.Systemctl("start", unit)
	return "[Service]\nSockets=" + unit + "\n"
}

// administered does what administrators do, under load on two ports of 127.0.0.1: of one the worker or the supervisor
// bound the socket, of the other NAME.socket.
func (s *service) administered(report string, bound, unit int) {
	m, t := s.Machine, s.t.(*testing.T)
	address := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	both := []int{bound, unit}
	clients := map[load.Class]int{load.New: 2, load.Late: 2}
	steps := []struct {
		what      string
		do        func()
		newWorker bool
	}{
		{"daemon-reload", func() { m.Systemctl("daemon-reload") }, false},
		{"daemon-reexec", func() { m.Systemctl("daemon-reexec") }, false},
		{"restart", s.restart, true},
		{"restart, reload", func() { m.Systemctl("restart", s.unit); s.reload() }, true},
		{"restart of the socket unit", func() {
			// systemd refuses to start it again while the service runs, and has closed its own copy by then.
			m.TrySystemctl("restart", s.name+".socket")
			s.restart()
		}, true},
	}
	for _, step := range steps {
		t.Run(step.what, func(t *testing.T) {
			s := &service{Machine: m.With(t), name: s.name, unit: s.unit}
			inodes := s.inodesOf(both)
			old := s.answers(address(bound))
			s.underLoad(report+step.what+", bound", tcp(bound), clients, func() {
				s.underLoad(report+step.what+", unit", tcp(unit), clients, step.do)
			})
			if pid := s.answers(address(unit)); (pid != old) != step.newWorker {
				t.Errorf("worker %d answers, before %d", pid, old)
			}
			s.drained(1)
			if after := s.inodesOf(both); !slices.Equal(inodes, after) {
				t.Errorf("listening inodes %v, before %v", after, inodes)
			}
		})
	}
}

// A stop ends everything and the ports refuse; power-off is a stop.
var _ = scenario("f-stop", func(t *testing.T, m *Machine) {
	s := m.service("stop", replace(t, goWorker("stop", socketTable("http", "127.0.0.1:6510")), `timeout = "10s"`, `timeout = "1s"`), "")
	s.arguments("-child")
	s.start()
	m.Systemctl("stop", s.unit)
	if pids := s.PIDs(s.unit); len(pids) > 0 {
		t.Errorf("left after stop: %v", pids)
	}
	if got := s.Get("127.0.0.1:6510", "/"); !strings.Contains(got, "refused") {
		t.Errorf("after stop the port answers %q, want refused", got)
	}
	if n := s.FDStoreSize(s.unit); n != 0 {
		t.Errorf("%d entries in the FD store after stop", n)
	}
})

// Several reloads, starts and stops at once: no call lies about its result, nothing hangs.
var _ = scenario("i-at-once", func(t *testing.T, m *Machine) {
	s := m.service("once", replace(t, goWorker("once", socketTable("http", "127.0.0.1:6520")), `timeout = "5s"`, `timeout = "60s"`), "")
	hold, client := "/run/hold-once", "/run/client-once"
	t.Cleanup(func() { m.Remove(hold, client) })
	// held is what the next workers start with: as long as the file is there they are not ready.
	held := func() {
		m.WriteFile(hold, "")
		s.arguments("-start-while=" + hold)
	}
	held()
	starting := m.Start("systemctl", "start", s.unit)
	s.untilStarting()
	// systemd merges it into the start, as on any service; the supervisor queues what it is asked itself.
	if r := m.TrySystemctl("--no-block", "reload", s.unit); r.Code != 0 {
		t.Errorf("reload during start: exit %d: %s", r.Code, r.Stderr)
	}
	early := map[string]<-chan Result{"systemctl": m.Start("systemctl", "reload", s.unit), "supervisor": m.Start("supervisor", "reload", s.name)}
	s.untilQueued()
	begin := time.Now()
	m.Remove(hold)
	if r := <-starting; r.Code != 0 {
		t.Fatalf("start: %s\n%s", r.Stderr, s.Journal(s.unit))
	}
	for program, result := range early {
		if r := <-result; r.Code != 0 {
			t.Errorf("%s reload during start: exit %d: %s%s", program, r.Code, r.Stdout, r.Stderr)
		}
	}
	if last := s.handoffSince(begin); !last.OK || last.Kind != "reload" || last.From == 0 {
		t.Errorf("after a start and a reload that followed it: %+v", last)
	}
	s.drained(1)
	for _, command := range [][]string{{"supervisor", "reload", s.name}, {"systemctl", "reload", s.unit}} {
		s.underLoad("i three reloads at once, "+command[0], tcp(6520), map[load.Class]int{load.New: 2, load.Late: 2}, func() {
			before := s.answers("127.0.0.1:6520")
			var calls []<-chan Result
			for range 3 {
				calls = append(calls, m.Start(command...))
			}
			for i, call := range calls {
				if r := <-call; r.Code != 0 {
					t.Errorf("%s: reload %d of three at once: exit %d: %s%s", command[0], i, r.Code, r.Stdout, r.Stderr)
				}
			}
			if s.answers("127.0.0.1:6520") == before {
				t.Errorf("%s: no new worker after three reloads", command[0])
			}
			s.drained(1)
		})
	}
	s.underLoad("i three reloads, one good", tcp(6520), map[load.Class]int{load.New: 2, load.Late: 2}, func() {
		old, toml := s.answers("127.0.0.1:6520"), s.ReadFile(s.config())
		held()
		running := m.Start("supervisor", "reload", s.name)
		s.untilStarting()
		s.WriteFile(s.config(), "nonsense = [")
		queued := m.Start("supervisor", "reload", s.name)
		s.untilQueued()
		noted, third := s.reloading()
		<-noted
		m.Remove(hold)
		if r := <-running; r.Code != 0 || strings.Contains(r.Stderr, s.config()) {
			t.Errorf("the reload that ran when the configuration broke: exit %d: %s%s", r.Code, r.Stdout, r.Stderr)
		}
		if r := <-queued; r.Code != 1 || !strings.Contains(r.Stderr, s.config()) {
			t.Errorf("the reload that was queued: exit %d: %s%s", r.Code, r.Stdout, r.Stderr)
		}
		if err := <-third; err == nil || !strings.Contains(err.Error(), s.config()) {
			t.Errorf("the reload that was queued with it: %v", err)
		}
		status := s.status()
		if bad, good := status.Handoffs[0], status.Handoffs[1]; bad.OK || !good.OK || bad.From != good.To || bad.To != 0 || s.answers("127.0.0.1:6520") == old {
			t.Errorf("the last handoffs: %+v and %+v", good, bad)
		}
		s.WriteFile(s.config(), toml)
		s.drained(1)
	})
	// Whoever asked for a reload may die: the reload goes on, and the next one works.
	for _, killed := range []string{"supervisor reload", "systemctl reload", "ExecReload="} {
		s.underLoad("i killed in a reload: "+killed, tcp(6520), map[load.Class]int{load.New: 2, load.Late: 2}, func() {
			old, begin, cursor := s.answers("127.0.0.1:6520"), time.Now(), m.Cursor()
			held()
			command := "systemctl reload " + s.unit
			if killed == "supervisor reload" {
				command = "supervisor reload " + s.name
			}
			asking := m.Start("sh", "-c", "echo $$ > "+client+"; exec "+command)
			s.untilStarting()
			pid := strings.TrimSpace(m.ReadFile(client))
			if killed == "ExecReload=" {
				pid = m.Property(s.unit, "ControlPID")
			}
			m.Run("kill", "-9", pid)
			if r := <-asking; r.Code == 0 {
				t.Errorf("%s was killed, and the client says 0: %s%s", killed, r.Stdout, r.Stderr)
			}
			if killed != "systemctl reload" {
				m.Eventually(10*time.Second, func() string {
					if said := m.JournalAfter(s.unit, cursor); !strings.Contains(said, "the client that asked for a reload has gone; the reload goes on") {
						return "the journal does not tell of it:\n" + said
					}
					return ""
				})
			}
			m.Remove(hold)
			s.replaced(old, begin)
			s.drained(1)
			s.reload()
			s.drained(1)
		})
	}
	s.arguments("-start-delay=10s")
	reloading := m.Start("systemctl", "reload", s.unit)
	s.untilStarting()
	m.Systemctl("stop", s.unit)
	select {
	case r := <-reloading:
		if r.Code == 0 {
			t.Errorf("a reload that was stopped says 0")
		}
	case <-time.After(30 * time.Second):
		t.Error("a reload hangs after the service was stopped")
	}
	if state := m.Systemctl("show", "-p", "Result,ActiveState", s.unit); strings.Contains(state, "failed") || !strings.Contains(state, "Result=success") {
		t.Errorf("after a stop during a reload: %s\n%s", state, s.Journal(s.unit))
	}
})

// untilQueued waits until a reload waits for the handoff under way.
func (s *service) untilQueued() {
	s.t.Helper()
	s.Eventually(30*time.Second, func() string {
		if status, err := s.ask(); !status.Queued {
			return fmt.Sprintf("no reload is queued: %v", err)
		}
		return ""
	})
}

// reloading asks for a reload over the control socket. noted is closed when the supervisor says that another comes first.
func (s *service) reloading() (noted <-chan struct{}, result <-chan error) {
	waits, done := make(chan struct{}), make(chan error, 1)
	note := sync.OnceFunc(func() { close(waits) })
	go func() {
		defer note()
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		defer cancel()
		client, err := control.Dial(ctx, s.Path("/run/supervisor/"+s.name))
		if err != nil {
			done <- err
			return
		}
		defer client.Close()
		r, err := client.Reload(ctx, false, func(e control.Event) {
			if e.Type == control.TypeNote {
				note()
			}
		})
		if err == nil && !r.OK {
			err = errors.New(r.Error)
		}
		done <- err
	}()
	return waits, done
}

// A worker that takes an exclusive lock cannot run beside another one.
var _ = scenario("h-signal-first", func(t *testing.T, m *Machine) {
	toml := goWorker("lock", "\n[handoff]\norder = \"signal-first\"\n"+socketTable("http", "127.0.0.1:6530"))
	s := m.service("lock", toml, "")
	s.arguments("-lock=/run/lock-of-worker")
	s.start()
	inodes := s.ListeningInodes(6530)
	clients := map[load.Class]int{load.New: 2, load.Late: 2}
	s.underLoad("h signal-first, 5 reloads", tcp(6530), clients, func() {
		for range 5 {
			old := s.answers("127.0.0.1:6530")
			s.reload()
			if s.answers("127.0.0.1:6530") == old {
				t.Errorf("worker %d still answers after the reload", old)
			}
		}
	})
	s.underLoad("h signal-first, failing start", tcp(6530), clients, func() {
		s.WriteFile(s.config(), replace(t, toml, `"-generation"`, `"-exit=9", "-generation"`))
		s.reloadFails("9")
		s.Eventually(20*time.Second, func() string {
			if pid, text := s.Worker("127.0.0.1:6530"); pid == 0 {
				return "no worker answers: " + text
			}
			return ""
		})
		s.WriteFile(s.config(), toml)
		s.reload()
	})
	s.drained(1)
	if after := s.ListeningInodes(6530); !slices.Equal(inodes, after) {
		t.Errorf("listening inodes %v, before %v", after, inodes)
	}
})

// Sockets of all origins, with names that names may have; the order that the worker sees is that of the configuration, then
// by name, and stays so.
var _ = scenario("g-origins", func(t *testing.T, m *Machine) {
	// Two without FileDescriptorName= have the unit's own name, of which the FD store does not keep every character.
	escaped, long := `esc\x2daped@a:b.socket`, strings.Repeat("n", 240)+".socket"
	units := map[string]string{
		"orig-b.socket": "ListenStream=127.0.0.1:6541\nFileDescriptorName=zz last/one\n",
		"orig-a.socket": "ListenStream=127.0.0.1:6540\nListenStream=/run/orig.sock\nListenDatagram=127.0.0.1:6540\nFileDescriptorName=aa\n",
		escaped:         "ListenStream=127.0.0.1:6545\n",
		long:            "ListenStream=127.0.0.1:6546\n",
	}
	sockets := slices.Sorted(maps.Keys(units))
	for name, lines := range units {
		m.WriteFile("/etc/systemd/system/"+name, "[Socket]\nService=supervisor@orig.service\n"+lines)
	}
	tables := socketTable("un", "unix:/run/orig-own.sock") + "\n[[socket]]\nname = \"zz last/one\"\nnonblock = false\n" +
		socketTable("mm", "127.0.0.1:6542") + socketTable("udp", "udp:127.0.0.1:6543")
	s := m.service("orig", goWorker("orig", "\n[handoff]\nfetch = \"pidfd\"\n"+tables),
		"[Service]\nSockets="+strings.ReplaceAll(strings.Join(sockets, " "), `\`, `\\`)+"\n")
	t.Cleanup(func() {
		for _, unit := range sockets {
			m.TrySystemctl("stop", unit)
			m.Remove("/etc/systemd/system/" + unit)
		}
	})
	s.arguments("-bind=tcp:127.0.0.1:6544")
	m.Systemctl(append([]string{"start"}, sockets...)...)
	s.start()
	s.arguments() // the next generations find it in LISTEN_FDS
	var held []string
	for _, h := range s.fds() {
		held = append(held, fmt.Sprintf("%s %s %s", h.Origin, h.Name, h.Address))
	}
	slices.Sort(held)
	if want := []string{
		"bound mm 127.0.0.1:6542", "bound udp 127.0.0.1:6543", "bound un /run/orig-own.sock",
		"fetched tcp-127.0.0.1_6544 127.0.0.1:6544",
		"unit aa 127.0.0.1:6540", "unit aa.2 /run/orig.sock", "unit aa.3 127.0.0.1:6540", "unit esc_x2daped@a_b.socket 127.0.0.1:6545",
		"unit " + long[:200] + " 127.0.0.1:6546", "unit zz last/one 127.0.0.1:6541",
	}; !slices.Equal(held, want) {
		t.Errorf("held:\n%s\nwant\n%s", strings.Join(held, "\n"), strings.Join(want, "\n"))
	}
	seen := ""
	for i, want := range [][2]string{
		{"un", "/run/orig-own.sock"}, {"zz last/one", "127.0.0.1:6541"}, {"mm", "127.0.0.1:6542"}, {"udp", "127.0.0.1:6543"},
		{"aa", "127.0.0.1:6540"}, {"aa", "/run/orig.sock"}, {"aa", "127.0.0.1:6540"}, {`esc\x2daped@a_b.socket`, "127.0.0.1:6545"},
		{long, "127.0.0.1:6546"}, {"tcp-127.0.0.1_6544", "127.0.0.1:6544"},
	} {
		seen += fmt.Sprintf("%d %q %s\n", i, want[0], want[1])
	}
	before := s.identities()
	killWorker := func() { s.Kill(s.view().serving().PID, syscall.SIGKILL) }
	for _, step := range []struct {
		what    string
		do      func()
		adopted bool
	}{
		{"reload", s.reload, false},
		{"restart", func() { m.Systemctl("restart", s.unit) }, false},
		{"daemon-reexec and restart", func() { m.Systemctl("daemon-reexec"); m.Systemctl("restart", s.unit) }, false},
		{"kill of the supervisor", s.killSupervisor, true},
		{"reload after it", s.reload, false},
		{"kill of the worker", killWorker, false},
		{"kill of both", func() { killWorker(); s.killSupervisor() }, false},
	} {
		old := s.view().serving().PID
		do := func() {
			begin := time.Now()
			if step.do(); !step.adopted {
				s.replaced(old, begin)
			} else if now := s.view().serving().PID; now != old {
				t.Errorf("after %s worker %d serves, before %d", step.what, now, old)
			}
		}
		unix := load.Target{Network: "unix", Address: "/run/orig.sock"}
		if strings.HasPrefix(step.what, "kill of") && !step.adopted {
			const clients = 2 // what they had in the dead worker dies with it
			result := s.whileLoaded(load.Options{Target: unix, Clients: map[load.Class]int{load.New: clients}, Pause: 2 * time.Millisecond}, do)
			s.report("g mixed origins, "+step.what, result)
			if lost := result.Failures() - cut(result); lost > 0 || cut(result) > clients {
				t.Errorf("%s:\n%s", step.what, result)
			}
		} else {
			s.underLoad("g mixed origins, UDP, "+step.what, load.Target{Address: "127.0.0.1:6543"}, map[load.Class]int{load.UDP: 1}, func() {
				s.underLoad("g mixed origins, "+step.what, unix, map[load.Class]int{load.New: 2}, do)
			})
		}
		if got := s.socketsSeen("127.0.0.1:6540"); got != seen {
			t.Errorf("after %s the worker sees\n%swant\n%s", step.what, got, seen)
		}
		if after := s.identities(); after != before {
			t.Errorf("after %s the sockets are\n%sbefore\n%s", step.what, after, before)
		}
	}
	s.drained(1)
})

// identities is what does not change of the held sockets, all of which must be in the FD store.
func (s *service) identities() string {
	s.t.Helper()
	var b strings.Builder
	for _, h := range s.fds() {
		fmt.Fprintf(&b, "%s %s %s cookie %d inode %d\n", h.Name, h.Origin, h.Address, h.Cookie, h.Inode)
		if !h.Stored {
			s.t.Errorf("%s is not in the FD store", h.Name)
		}
	}
	return b.String()
}

// socketsSeen is what the worker got, without the first line that names it and without options.
func (s *service) socketsSeen(address string) string {
	s.t.Helper()
	var b strings.Builder
	_, list, _ := strings.Cut(s.Get(address, "/sockets"), "\n")
	for line := range strings.Lines(list) {
		line, _, _ := strings.Cut(line, " block")
		line, _, _ = strings.Cut(line, " nonblock")
		b.WriteString(line + "\n")
	}
	return b.String()
}

// O_NONBLOCK and every socket option are what was asked for, and stay so, for a blocking and a non-blocking worker; where
// generations take turns on the sockets of a pair, those of the two are the same.
var _ = scenario("j-options", func(t *testing.T, m *Machine) {
	units := map[string]string{
		"opts-tcp.socket": "ListenStream=127.0.0.1:6551\nBacklog=77\nKeepAlive=yes\nKeepAliveTimeSec=33\nKeepAliveIntervalSec=7\nKeepAliveProbes=4\n" +
			"NoDelay=yes\nReceiveBuffer=64K\nSendBuffer=32K\nIPTOS=low-delay\nIPTTL=33\nDeferAcceptSec=2\nTCPCongestion=reno\nFreeBind=yes\n",
		"opts-any.socket": "ListenStream=[::1]:6552\nListenDatagram=127.0.0.1:6553\nBindIPv6Only=ipv6-only\nPriority=3\nMark=7\n" +
			"Transparent=yes\nBroadcast=yes\nReceiveBuffer=64K\nTimestamping=us\n",
	}
	// The kernel doubles buffers, rounds TCP_DEFER_ACCEPT up, and derives the priority from IP_TOS.
	wanted := map[string]string{
		"127.0.0.1:6550": "tcp_defer_accept=3 ip_freebind=1",
		"127.0.0.1:6551": "keepalive=1 tcp_keepidle=33 tcp_keepintvl=7 tcp_keepcnt=4 tcp_nodelay=1 rcvbuf=131072 sndbuf=65536 ip_tos=16 priority=6 " +
			"ip_ttl=33 tcp_defer_accept=3 tcp_congestion=reno ip_freebind=1",
		"[::1]:6552":     "ipv6_v6only=1 priority=3 mark=7 ipv6_transparent=1 rcvbuf=131072 timestamp=1",
		"127.0.0.1:6553": "broadcast=1 priority=3 mark=7 ip_transparent=1 rcvbuf=131072 timestamp=1",
	}
	names := slices.Sorted(maps.Keys(units))
	for unit, lines := range units {
		m.WriteFile("/etc/systemd/system/"+unit, "[Socket]\nService=supervisor@opts.service\n"+lines)
	}
	s := m.service("opts", "", "[Service]\nSockets="+strings.Join(names, " ")+"\n")
	t.Cleanup(func() {
		for _, unit := range names {
			m.TrySystemctl("stop", unit)
			m.Remove("/etc/systemd/system/" + unit)
		}
	})
	m.Systemctl(append([]string{"start"}, names...)...)
	for _, divert := range []string{"none", "auto"} {
		for _, accept := range []string{"block", "nonblock"} {
			t.Run(accept+", divert "+divert, func(t *testing.T) {
				tables, mode := socketTable("http", "127.0.0.1:6550")+"backlog = 33\ndefer_accept = \"2s\"\nfree_bind = true\n", ""
				if accept == "nonblock" {
					mode = "nonblock = true\n"
					for _, unit := range names {
						tables += mode + fmt.Sprintf("[[socket]]\nname = %q\n", unit)
					}
				}
				tables += mode + socketTable("unix", "unix:/run/opts.sock") + mode
				s := &service{Machine: m.With(t), name: s.name, unit: s.unit}
				s.configure(replace(t, goWorker("opts", tables), "[drain]", fmt.Sprintf("[drain]\ndivert = %q", divert)))
				s.arguments("-accept=" + accept)
				s.start()
				t.Cleanup(func() { s.Systemctl("stop", s.unit) })
				options := map[int]string{}
				look := func() (compared bool) {
					slot := 0
					if divert == "auto" {
						slot = s.view().serving().Slot
					}
					_, list, _ := strings.Cut(s.Get("127.0.0.1:6550", "/sockets"), "\n")
					if n := strings.Count(list, " "+accept+" "); n != 5 {
						t.Errorf("%d of 5 sockets are %s:\n%s", n, accept, list)
					}
					for line := range strings.Lines(list) {
						for _, address := range slices.Sorted(maps.Keys(wanted)) {
							if !strings.Contains(line, " "+address+" ") {
								continue
							}
							if missing := slices.DeleteFunc(strings.Fields(wanted[address]), func(w string) bool {
								return slices.Contains(strings.Fields(line), w)
							}); len(missing) > 0 {
								t.Errorf("slot %d: %s is not %q: %s", slot, address, missing, line)
							}
						}
					}
					list += m.Sh("ss -Htln 'sport >= :6550 and sport <= :6552' | awk '{print $3, $4}' | sort")
					before, compared := options[slot]
					if compared && list != before {
						t.Errorf("options of slot %d changed to\n%sfrom\n%s", slot, list, before)
					}
					options[slot] = list
					return compared
				}
				look()
				compared := 0
				for _, do := range []func(){s.reload, s.restart, s.reload, s.reload} {
					do()
					s.drained(1)
					if look() {
						compared++
					}
				}
				if want := map[string]int{"none": 4, "auto": 3}[divert]; compared != want {
					t.Errorf("compared %d times, want %d: %v", compared, want, options)
				}
				if divert == "auto" && options[0] != options[1] {
					t.Errorf("the first of each pair\n%sthe second\n%s", options[0], options[1])
				}
			})
		}
	}
})

// systemd clears O_NONBLOCK on the sockets of .socket units at every start of the service, for whoever holds them: a
// worker that lives on must find its sockets as it left them.
var _ = scenario("j-options-survive", func(t *testing.T, m *Machine) {
	m.WriteFile("/etc/systemd/system/mode.socket", "[Socket]\nListenStream=127.0.0.1:6561\nFileDescriptorName=unit\nService=supervisor@mode.service\n")
	s := m.service("mode", goWorker("mode", socketTable("bound", "127.0.0.1:6560")), "[Service]\nSockets=mode.socket\n")
	t.Cleanup(func() {
		m.TrySystemctl("stop", "mode.socket")
		m.Remove("/etc/systemd/system/mode.socket")
	})
	read := func() string {
		_, list, _ := strings.Cut(s.Get("127.0.0.1:6560", "/sockets"), "\n")
		return list
	}
	s.arguments("-accept=epoll")
	m.Systemctl("start", "mode.socket")
	s.start()
	before := read()
	if strings.Count(before, " nonblock ") != 2 {
		t.Errorf("sockets are not non-blocking:\n%s", before)
	}
	worker := s.answers("127.0.0.1:6560")
	s.killSupervisor()
	if after := read(); after != before {
		t.Errorf("after a kill of the supervisor the sockets are\n%sbefore\n%s", after, before)
	}
	if pid := s.answers("127.0.0.1:6560"); pid != worker {
		t.Errorf("worker %d answers, before %d", pid, worker)
	}
})
