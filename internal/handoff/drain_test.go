package handoff_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/probe"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
)

// drain drains the generation, with traffic going to slot to, and returns the steps. It calls diverted after the first.
func (h *host) drain(g *handoff.Generation, to int, diverted func()) map[string]handoff.Timed {
	h.t.Helper()
	steps := map[string]handoff.Timed{}
	d := &handoff.Drain{Host: h, Gen: g, To: to, Changed: func() {}, OnStep: func(t handoff.Timed) {
		if steps[t.Name] = t; t.Name == "divert" {
			diverted()
		}
	}}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	d.Run(ctx)
	if ctx.Err() != nil {
		h.t.Error("the drain does not end")
	}
	h.Discard(g, steps["signal"].Note)
	return steps
}

// ownSockets is the configuration of a worker that binds its sockets and tells them by _getsocks, with these lines of [drain].
func ownSockets(drain string) string {
	return "sockets = [\"systemd\", \"getsocks\"]\n[ready]\nwhen = [\"notify\"]\n[drain]\n" + drain + "\n[handoff]\ngetsocks = \"DIR/own.sock\"\n"
}

// A socket that cannot be steered after all does not keep the others from being steered: it is fenced.
func TestOneSocketNotSteered(t *testing.T) {
	h := newHost(t)
	h.configure("", strings.Replace(plain, "divert = \"none\"", "settle = \"20ms\"", 1))
	odd := h.listener(sockets.Unit, "odd", 82) // first in the order
	other, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: h.addr, Port: 83})
	if err != nil {
		t.Fatal(err)
	}
	h.held.Pair(odd, other) // no group in the kernel
	h.must()
	old := h.serving
	ho, err := h.handoff()
	if err != nil {
		t.Fatal(err)
	}
	steps := h.drain(old, ho.New.Slot, func() {})
	if s := steps["divert"]; !strings.HasPrefix(s.Note, "1 steered, 1 fenced") || s.Error != "" || old.Divert != "steer+fence" {
		t.Errorf("divert: %+v, %s", s, old.Divert)
	}
	if !h.noted("socket odd") {
		t.Errorf("notes: %q", h.notes)
	}
	if s := h.held.Get("http"); s.Steered != ho.New.Slot {
		t.Errorf("socket http is steered to slot %d", s.Steered)
	}
}

// A pair stays one when the configuration changes, and the switch steers it: what has begun at the half of the old
// generation is waited for, whatever drain.divert says by then.
func TestPairsOutliveSteer(t *testing.T) {
	for _, divert := range []string{"auto", "fence", "none"} {
		t.Run(divert, func(t *testing.T) {
			h := newHost(t)
			tables := func(divert string) string { return ownSockets("divert = \"" + divert + "\"\nsettle = \"20ms\"") }
			own := "-getsocks=" + h.dir + "/own.sock"
			h.configure(own+" -bind=tcp:"+h.addr+":8080", tables("steer"))
			h.must()
			h.configure(own, tables(divert))
			h.must()
			s := h.held.Ordered(nil)[0]
			if s.Alternate == nil {
				t.Fatal("no pair")
			}
			for _, fd := range []*sys.FD{s.FD, s.Alternate} {
				if err := sys.SetDeferAccept(fd.Num(), 60); err != nil {
					t.Fatal(err)
				}
			}
			old := h.serving
			if err := handoff.SteerTo(s, old.Slot); err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("tcp", h.addr+":8080")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ho, err := h.handoff()
			if err != nil {
				t.Fatal(err)
			}
			if err := handoff.SteerTo(s, ho.New.Slot); err != nil { // as the daemon does
				t.Fatal(err)
			}
			sent := make(chan error, 1)
			time.AfterFunc(500*time.Millisecond, func() {
				_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
				sent <- err
			})
			steps := h.drain(old, ho.New.Slot, func() {})
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			conn.SetReadDeadline(time.Now().Add(limit))
			answer, err := io.ReadAll(conn)
			if want := fmt.Sprintf("gen=%d\n", old.N); err != nil || !strings.Contains(string(answer), want) || old.Divert != config.DivertSteer {
				t.Errorf("answer %q, %v; want %q; divert: %+v, %s", answer, err, want, steps["divert"], old.Divert)
			}
		})
	}
}

// Each generation binds a TCP listener anew, at an address that was steered or not: no SYN is dropped. Nor if the first was one
// that the configuration named.
func TestReplacedListener(t *testing.T) {
	for _, divert := range []string{"none", "steer", "steer, configured"} {
		t.Run(divert, func(t *testing.T) {
			h := newHost(t)
			divert, _, configured := strings.Cut(divert, ", ")
			tables := ownSockets("divert = \"" + divert + "\"\nsettle = \"300ms\"")
			arguments := "-getsocks=" + h.dir + "/own.sock -reuseport -bind=tcp:" + h.addr + ":8081"
			if configured {
				h.configure("-getsocks="+h.dir+"/own.sock", tables+"[[socket]]\nname = \"http\"\nlisten = \"ADDR:8081\"\n")
			} else {
				h.configure(arguments, tables)
			}
			h.must()
			h.configure(arguments+" -close="+h.addr+":8081", tables)
			for range 2 {
				old := h.serving
				ho, err := h.handoff()
				if err != nil {
					t.Fatal(err)
				}
				if len(old.Leaving) != 1 || !configured && !h.noted("but bound another one there") {
					t.Fatalf("%d sockets are left, %q", len(old.Leaving), h.notes)
				}
				stop, done := make(chan bool), make(chan bool)
				tried, failed := 0, 0
				go func() {
					defer close(done)
					for {
						tried++
						conn, err := net.DialTimeout("tcp", h.addr+":8081", 500*time.Millisecond) // before a SYN is sent again
						if err != nil {
							failed++
						} else {
							conn.Close()
						}
						select {
						case <-stop:
							return
						case <-time.After(5 * time.Millisecond):
						}
					}
				}()
				h.drain(old, ho.New.Slot, func() {})
				close(stop)
				<-done
				if failed > 0 || tried < 10 {
					t.Errorf("%d of %d connections got no answer to their SYN", failed, tried)
				}
			}
		})
	}
}

// A worker of the second slot that shared its socket, which is no pair, died: what waits there is its replacement's.
func TestCrashInSecondSlot(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			h := newHost(t)
			h.configure("-getsocks="+h.dir+"/own.sock", ownSockets("divert = \"steer\""))
			fd, err := sys.OpenListener(sys.ListenSpec{Network: network, Host: h.addr, Port: 8081, ReusePort: true})
			if err != nil {
				t.Fatal(err)
			}
			s, err := sockets.New(fd, sockets.Fetched, "")
			if err != nil {
				t.Fatal(err)
			}
			h.held.Add(s)
			h.slot = 1
			conn, err := net.Dial(network, h.addr+":8081")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			h.must()
			conn.SetReadDeadline(time.Now().Add(limit))
			if n, err := conn.Read(make([]byte, 500)); err != nil || n == 0 {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
}

// What waits in a listener that nobody but the old worker has is taken before that one is told to stop, and what comes
// meanwhile does not wait in it.
func TestLeavingSocketIsEmptied(t *testing.T) {
	h := newHost(t)
	tables := "sockets = [\"getsocks\"]\n[ready]\nwhen = [\"notify\"]\n[drain]\ndivert = \"none\"\nsettle = \"20ms\"\n[handoff]\nfetch = \"pidfd\"\n"
	h.configure("-bind=tcp:"+h.addr+":8080", tables)
	h.must()
	h.configure("-bind=tcp:"+h.addr+":8081", tables)
	old := h.serving
	ho, err := h.handoff()
	if err != nil {
		t.Fatal(err)
	}
	if len(old.Leaving) != 1 || h.held.Len() != 1 {
		t.Fatalf("%d sockets are left, held: %+v, %q", len(old.Leaving), h.picture().Held, h.notes)
	}
	left, err := old.Leaving[0].Dup()
	if err != nil {
		t.Fatal(err)
	}
	defer left.Close()
	stop := func(s syscall.Signal) {
		if err := syscall.Kill(old.PID(), s); err != nil {
			t.Error(err)
		}
	}
	stop(syscall.SIGSTOP)
	waiting, err := net.Dial("tcp", h.addr+":8080")
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	if _, err := io.WriteString(waiting, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	told := false
	d := &handoff.Drain{Host: h, Gen: old, To: ho.New.Slot,
		OnStep: func(s handoff.Timed) {
			if s.Name == "idle" { // what comes next is the signal
				stop(syscall.SIGCONT)
			}
		},
		Changed: func() {
			if told {
				return
			}
			told = true
			if queued, err := sys.Readable(left.Num()); queued || err != nil {
				t.Errorf("a connection waits in the socket when the worker is told to stop (%v)", err)
			}
			if late, err := net.Dial("tcp", h.addr+":8080"); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a connection to the socket that is left: %v", err)
				if err == nil {
					late.Close()
				}
			}
			left.Close() // otherwise it would be this test that clients wait for
		}}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	d.Run(ctx)
	if !told || ctx.Err() != nil {
		t.Errorf("the drain does not end, told: %v", told)
	}
	h.Discard(old, "drained")
	if answer, err := io.ReadAll(waiting); err != nil || !strings.Contains(string(answer), "pid=") {
		t.Errorf("the answer is %q, %v", answer, err)
	}
	if _, err := net.Dial("tcp", h.addr+":8080"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a connection afterwards: %v", err)
	}
}

// From HAProxy UDP sockets are kept, on which QUIC connections begin, and no others.
func TestOnlyDatagramsKeptFromHAProxy(t *testing.T) {
	h := newHost(t)
	h.configure("", strings.Replace(plain, "divert = \"none\"", "divert = \"none\"\nsettle = \"20ms\"", 1)+
		"[[socket]]\nname = \"quic\"\nlisten = \"udp:ADDR:8080\"\n")
	h.must()
	old := h.serving
	ho, err := h.handoff()
	if err != nil {
		t.Fatal(err)
	}
	old.Config.Drain.Divert, old.Config.Handoff.Fetch = config.DivertAuto, config.FetchGetsocks
	tcp, udp := h.held.Get("http").Info.Inode, h.held.Get("quic").Info.Inode
	steps := h.drain(old, ho.New.Slot, func() {
		waits, err := probe.Listening([]int{old.PID()}, []uint64{tcp, udp})
		if err != nil || waits[tcp] == 0 || waits[udp] != 0 {
			t.Errorf("it waits on %v, %v; tcp is %d, udp %d", waits, err, tcp, udp)
		}
	})
	if s := steps["divert"]; !strings.HasPrefix(s.Note, "0 steered, 1 fenced") || s.Error != "" || old.Divert != config.DivertFence {
		t.Errorf("divert: %+v, %s", s, old.Divert)
	}
}

// answers asks at a UDP port and demands that the generation answers.
func (h *host) answers(port string, g *handoff.Generation) {
	h.t.Helper()
	conn, err := net.Dial("udp", h.addr+":"+port)
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		h.t.Fatal(err)
	}
	buf := make([]byte, 256)
	n, err := conn.Write([]byte("x"))
	if err == nil {
		n, err = conn.Read(buf)
	}
	if want := fmt.Sprintf("pid=%d ", g.PID()); err != nil || !strings.Contains(string(buf[:n]), want) {
		h.t.Errorf("port %s: %q, %v, want %s", port, buf[:n], err, want)
	}
}

// A newcomer binds the address of a UDP socket anew: from the divert step on it gets all that arrives.
func TestDatagramsOfReplacedSocket(t *testing.T) {
	h := newHost(t)
	tables := ownSockets("settle = \"20ms\"")
	arguments := "-getsocks=" + h.dir + "/own.sock -reuseport -bind=udp:" + h.addr + ":8081"
	h.configure(arguments, tables)
	h.must()
	h.configure(arguments+" -close="+h.addr+":8081", tables)
	for range 3 {
		old := h.serving
		ho, err := h.handoff()
		if err != nil {
			t.Fatal(err)
		}
		if len(old.Leaving) != 1 || !h.noted("but bound another one there") {
			t.Fatalf("%d sockets are left, %q", len(old.Leaving), h.notes)
		}
		h.drain(old, ho.New.Slot, func() {
			for range 20 {
				h.answers("8081", ho.New)
			}
		})
	}
}

// What arrives at a UDP socket that HAProxy bound itself is steered, and never read by two generations: a client begins a
// connection over QUIC with more than one datagram.
func TestDatagramsSteered(t *testing.T) {
	h := newHost(t)
	tables := ownSockets("settle = \"20ms\"")
	h.configure("-getsocks="+h.dir+"/own.sock -bind=tcp:"+h.addr+":8080 -bind=udp:"+h.addr+":8081", tables)
	h.must()
	ports := []string{"8081"}
	for n := range 4 {
		args := "-getsocks=" + h.dir + "/own.sock"
		if n == 0 {
			args += " -bind=udp:" + h.addr + ":8082" // by the generation of the other slot
		}
		h.configure(args, tables)
		old := h.serving
		ho, err := h.handoff()
		if err != nil {
			t.Fatal(err)
		}
		for _, port := range ports {
			for range 10 {
				h.answers(port, old)
			}
		}
		steps := h.drain(old, ho.New.Slot, func() {
			for _, port := range ports {
				h.answers(port, ho.New)
			}
		})
		if s := steps["divert"]; !strings.HasPrefix(s.Note, fmt.Sprintf("%d steered, 0 fenced", len(ports))) || s.Error != "" || old.Divert != config.DivertSteer {
			t.Errorf("divert: %+v, %s", s, old.Divert)
		}
		if n == 0 {
			ports = append(ports, "8082")
			h.answers("8082", ho.New)
		}
	}
	for _, s := range h.held.Ordered(nil) {
		if pair := s.Alternate != nil; pair != (s.Info.Network == "udp") {
			t.Errorf("socket %s: a pair: %v", s.Name, pair)
		}
	}
	if h.held.Len() != 3 || len(h.notes) > 0 {
		t.Errorf("held: %v, notes: %q", h.picture().Held, h.notes)
	}
}

// A connection whose handshake began before the traffic was steered away is waited for: nobody else accepts there.
func TestHandshakeUnderWay(t *testing.T) {
	h := newHost(t)
	h.configure("", strings.Replace(plain, "divert = \"none\"", "settle = \"0s\"", 1)+"defer_accept = \"60s\"\n")
	h.must()
	old := h.serving
	conn, err := net.Dial("tcp", h.addr+":8080")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ho, err := h.handoff()
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	time.AfterFunc(time.Second, func() {
		_, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
		sent <- err
	})
	steps := h.drain(old, ho.New.Slot, func() {})
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(limit))
	answer, err := io.ReadAll(conn)
	if want := fmt.Sprintf("gen=%d\n", old.N); err != nil || !strings.Contains(string(answer), want) {
		t.Errorf("answer %q, %v; want %q", answer, err, want)
	}
	if took := steps["divert"].Took; took < time.Second || took >= 5*time.Second || len(h.notes) > 0 {
		t.Errorf("divert took %s, notes: %q", took, h.notes)
	}
}
