//go:build vm

package vm

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/test/load"
)

// P1: a reload loses no request, whatever the server does on its stop signal. This worker exits at once, with whatever
// it had accepted and not answered. That the same load without diversion loses shows that a loss would be seen.
var _ = scenario("p1-lossy", func(t *testing.T, m *Machine) {
	port := 7300
	for _, accept := range []string{"net", "epoll"} {
		for _, c := range []struct{ network, divert, reported string }{
			{"tcp", "auto", "steer"},
			{"udp", "auto", "steer"},
			{"unix", "auto", "fence"},
			{"tcp", "none", "none"},
			{"unix", "none", "none"},
		} {
			port++
			port := port
			t.Run(fmt.Sprintf("%s, %s, divert %s", accept, c.network, c.divert), func(t *testing.T) {
				t.Parallel()
				name := fmt.Sprintf("lossy%d", port)
				target, listen := tcp(port), fmt.Sprintf("127.0.0.1:%d", port)
				clients := map[load.Class]int{load.New: 2, load.Late: 8}
				switch {
				case c.network == "unix":
					target = load.Target{Network: "unix", Address: "/run/" + name + ".sock"}
					listen = "unix:" + target.Address
				case c.network == "udp":
					listen = "udp:" + listen
					clients = map[load.Class]int{load.UDP: 4}
				}
				s := m.With(t).service(name, fmt.Sprintf(`
[worker]
command = ["/usr/bin/worker", "-generation", "${generation}", "-drain=abrupt", "-accept=%s"]

[drain]
divert = %q
settle = "1s"
`, accept, c.divert)+socketTable("s", listen), "")
				s.start()
				what := fmt.Sprintf("p1 lossy %s %s, divert %s", accept, c.network, c.divert)
				if c.divert == "none" {
					what += " (must lose)"
				}
				result := s.whileLoaded(load.Options{Target: target, Clients: clients, Pause: 2 * time.Millisecond, Late: 50 * time.Millisecond}, func() {
					for range 3 {
						old := s.view().serving()
						if err := s.tryReload(); err != nil {
							t.Errorf("reload: %v", err)
						}
						now := s.view()
						i := slices.IndexFunc(now.status.Generations, func(g control.Generation) bool { return g.N == old.N })
						if i < 0 || now.status.Generations[i].Divert != c.reported {
							t.Errorf("generation %d was not diverted by %s: %+v", old.N, c.reported, now.status.Generations)
						}
						if now.serving().PID == old.PID {
							t.Errorf("worker %d serves after the reload", old.PID)
						}
					}
				})
				s.report(what, result)
				if lost := result.Failures(); c.divert == "auto" && lost > 0 {
					t.Errorf("%s: %d of %d requests failed:\n%s", what, lost, result.Requests(), result)
				} else if c.divert == "none" && result.Classes[load.Late].Failures() == 0 {
					t.Errorf("%s: nothing was lost, so this load cannot see a loss:\n%s", what, result)
				}
			})
		}
	}
})

// Reloads in quick succession: the third one needs the half of each pair on which the first worker still answers what
// takes a while. It ends at once when it is told to stop.
var _ = scenario("p1-quick", func(t *testing.T, m *Machine) {
	s := m.service("quick", `
[worker]
command = ["/usr/bin/worker", "-generation", "${generation}", "-drain=abrupt"]

[drain]
settle = "100ms"
idle = "8s"
`+socketTable("s", "127.0.0.1:7320"), "")
	s.start()
	const what = "p1 three reloads without a pause"
	result := s.whileLoaded(load.Options{Target: tcp(7320), Clients: map[load.Class]int{load.New: 1, load.Slow: 8},
		SlowPath: "/slow?ms=1500", Pause: 2 * time.Millisecond}, func() {
		for range 3 {
			m.Run("supervisor", "reload", "quick")
		}
		s.drained(1)
	})
	s.report(what, result)
	if lost := result.Failures(); lost > 0 {
		t.Errorf("%s: %d of %d requests failed:\n%s", what, lost, result.Requests(), result)
	}
	if n := len(result.Workers()); n != 4 {
		t.Errorf("%d workers have answered, want 4", n)
	}
})

// A handshake that is completed only when the worker with which it began has gone: nobody accepts there any more, and
// one more worker answers. TCP_DEFER_ACCEPT leaves it incomplete until the first bytes are there.
var _ = scenario("p1-late-handshake", func(t *testing.T, m *Machine) {
	s := m.service("late", goWorker("late", socketTable("s", "127.0.0.1:7330")+"defer_accept = \"60s\"\n"), "")
	s.arguments()
	s.start()
	s.underLoad("p1 late handshake", tcp(7330), map[load.Class]int{load.New: 2}, func() {
		conn, err := m.Dial(context.Background(), "tcp", "127.0.0.1:7330")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		m.Run("supervisor", "reload", "late", "--drained")
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		answer, readErr := io.ReadAll(conn)
		if err != nil || readErr != nil || !strings.Contains(string(answer), "gen=3\n") {
			t.Errorf("answer %q, %v, %v; want one of generation 3", answer, err, readErr)
		}
	})
	s.drained(1)
})

// A reload drops a socket: what the old worker has accepted from it is answered, and who comes later is refused, never
// cut. Where another socket has the address from then on, nobody is refused either. This worker ends at once when it is
// told to stop.
var _ = scenario("p1-dropped-socket", func(t *testing.T, m *Machine) {
	config := func(sockets string) string {
		return `
[worker]
command = ["/usr/bin/worker", "-generation", "${generation}", "-drain=abrupt"]

[drain]
settle = "100ms"
idle = "8s"
` + sockets
	}
	stays := socketTable("stays", "127.0.0.1:7340")
	s := m.service("dropped", config(stays+socketTable("goes", "127.0.0.1:7341")+socketTable("moves", "127.0.0.1:7342")), "")
	s.start()
	clients := map[load.Class]int{load.New: 1, load.Slow: 4}
	run := m.Load(load.Options{Target: tcp(7341), Clients: clients, Pause: 20 * time.Millisecond})
	s.underLoad("p1 a socket stays", tcp(7340), map[load.Class]int{load.New: 1}, func() {
		s.underLoad("p1 a socket is replaced", tcp(7342), clients, func() {
			m.progress(run, 20)
			s.WriteFile(s.config(), config(stays+socketTable("moves", "0.0.0.0:7342")))
			s.reload()
			s.drained(1)
			m.progress(run, 20)
		})
	})
	result := run.Stop()
	s.report("p1 a socket goes (is refused)", result)
	for class, c := range result.Classes {
		if c.Failures() != c.Kinds[load.Refused] || c.Kinds[load.OK] == 0 || c.Kinds[load.Refused] == 0 {
			t.Errorf("%s clients of the dropped socket were cut, or never refused:\n%s", class, result)
		}
	}
})
