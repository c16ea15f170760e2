//go:build vm

package vm

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/test/load"
)

// A thousand listeners of HAProxy are fetched, stored, handed over and back after a restart.
var _ = scenario("k-thousand-listeners", func(t *testing.T, m *Machine) {
	const listeners = 1000
	s := m.haproxy("thousand", binds("127.0.0.1:20000-20999"))
	s.dropin("[Service]\nLimitNOFILE=19000\n")
	s.start()
	before := m.listeners(20000, 20000+listeners)
	if len(before) != listeners {
		t.Fatalf("%d listeners", len(before))
	}
	s.underLoad("k 1,000 listeners", tcp(20500), map[load.Class]int{load.New: 2}, func() {
		s.timed("k 1,000 listeners, reload", s.reload)
		s.timed("k 1,000 listeners, reload", s.reload)
		s.drained(1)
		s.timed("k 1,000 listeners, restart", func() { m.Systemctl("restart", s.unit) })
		s.drained(1)
	})
	if after := m.listeners(20000, 20000+listeners); !slices.Equal(before, after) {
		t.Errorf("%d listeners after reload and restart, %d of them the same", len(after), len(common(before, after)))
	}
})

// Ten thousand sockets that a quick worker has bound by itself are fetched, stored, handed over and back after a restart.
var _ = scenario("k-ten-thousand-sockets", func(t *testing.T, m *Machine) {
	const listeners = 10000
	toml := replace(t, goWorker("many", "\n[handoff]\nfetch = \"pidfd\"\n"), "[drain]", "[drain]\ndivert = \"none\"")
	s := m.service("many", toml, "[Service]\nLimitNOFILE=20000\n")
	arguments := []string{"-accept=epoll"}
	for i := range listeners {
		arguments = append(arguments, fmt.Sprintf("-bind=tcp:127.0.0.1:%d", 20000+i))
	}
	s.arguments(arguments...)
	s.timed("k 10,000 sockets, start", func() { s.start() })
	s.arguments("-accept=epoll") // the next generations find them in LISTEN_FDS
	before := m.listeners(20000, 20000+listeners)
	if len(before) != listeners {
		t.Fatalf("%d listeners", len(before))
	}
	s.underLoad("k 10,000 sockets", tcp(25000), map[load.Class]int{load.New: 2}, func() {
		s.timed("k 10,000 sockets, reload", s.reload)
		s.drained(1)
		s.timed("k 10,000 sockets, restart", func() { m.Systemctl("restart", s.unit) })
		s.drained(1)
	})
	if after := m.listeners(20000, 20000+listeners); !slices.Equal(before, after) {
		t.Errorf("%d listeners after reload and restart, %d of them the same", len(after), len(common(before, after)))
	}
	s.holds(before)
})

// holds checks that the listeners were fetched, that systemd has them, and the worker.
func (s *service) holds(listeners []uint64) {
	s.t.Helper()
	v := s.view()
	if want := fmt.Sprintf("serving %d sockets", len(listeners)); v.status.Sockets != len(listeners) || v.serving().Status != want {
		s.t.Errorf("%d sockets are held, the worker says %q, want %q", v.status.Sockets, v.serving().Status, want)
	}
	var inodes []uint64
	other := 0
	for _, h := range s.fds() {
		inodes = append(inodes, h.Inode)
		if h.Origin != "fetched" || !h.Stored {
			other++
		}
	}
	slices.Sort(inodes)
	if !slices.Equal(inodes, listeners) || other > 0 {
		s.t.Errorf("fds lists %d sockets, %d of the %d listeners; %d are not fetched or not stored",
			len(inodes), len(common(inodes, listeners)), len(listeners), other)
	}
	if !s.FDStoreShown() {
		return
	}
	if store := s.FDStore(s.unit); !slices.ContainsFunc(store, func(e StoredFD) bool { return strings.HasPrefix(e.Name, "supervisor.bundle.") }) {
		s.t.Errorf("no bundle among the %d entries of the FD store", len(store))
	}
}

// After a thousand reloads nothing is more than it was after ten.
var _ = scenario("k-leaks", func(t *testing.T, m *Machine) {
	reloads := 100
	// A thousand take two minutes, which one systemd is enough for.
	if m.Systemd == 257 && !m.local || os.Getenv("SUPERVISOR_TEST_LONG") != "" {
		reloads = 1000
	}
	toml := goWorker("leaks", socketTable("http", "127.0.0.1:6600"))
	s := m.service("leaks", replace(t, toml, `settle = "100ms"`, `settle = "0s"`), "")
	s.arguments()
	s.start()
	reload := func(times int) {
		s.Sh(fmt.Sprintf("for i in $(seq %d); do supervisor reload leaks --drained > /dev/null; done", times))
	}
	reload(10)
	s.drained(1)
	early := s.usage()
	s.timed(fmt.Sprintf("k %d reloads", reloads), func() {
		s.underLoad(fmt.Sprintf("k %d reloads", reloads), tcp(6600), map[load.Class]int{load.Late: 2}, func() {
			for range reloads / 100 {
				reload(100)
			}
		})
	})
	s.drained(1)
	late := s.usage()
	s.note(fmt.Sprintf("k %d reloads: %+v, after ten %+v", reloads, late, early))
	if late.descriptors > early.descriptors || late.stored > early.stored || late.processes > early.processes {
		t.Errorf("after %d reloads %+v, after ten %+v", reloads, late, early)
	}
	if late.rss > early.rss+4096 {
		t.Errorf("%d KiB resident after %d reloads, %d after ten", late.rss, reloads, early.rss)
	}
	if n := s.status().Generations[0].N; n < reloads {
		t.Errorf("generation %d after %d reloads", n, reloads)
	}
})

// listeners lists the inodes of the TCP listeners on 127.0.0.1 with ports from first up to, not including, end.
func (m *Machine) listeners(first, end int) []uint64 {
	m.t.Helper()
	var inodes []uint64
	for line := range strings.Lines(m.ReadFile("/proc/1/net/tcp")) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != "0A" {
			continue
		}
		_, hex, _ := strings.Cut(f[1], ":")
		port, err := strconv.ParseInt(hex, 16, 32)
		if err != nil || int(port) < first || int(port) >= end {
			continue
		}
		inode, err := strconv.ParseUint(f[9], 10, 64)
		if err != nil {
			m.t.Fatal(err)
		}
		inodes = append(inodes, inode)
	}
	slices.Sort(inodes)
	return inodes
}

// common lists what two sorted lists share.
func common(a, b []uint64) []uint64 {
	return slices.DeleteFunc(slices.Clone(a), func(x uint64) bool { _, found := slices.BinarySearch(b, x); return !found })
}

// timed notes how long do took, and of the handoff that it began, which must be done: the steps, and the processor time
// that systemd itself used.
func (s *service) timed(what string, do func()) {
	s.t.Helper()
	old, before, start := s.view().serving().PID, s.pid1CPU(), time.Now()
	do()
	took := time.Since(start)
	last := s.replaced(old, start)
	cpu := s.pid1CPU() - before
	s.note(fmt.Sprintf("%s: %s, PID 1 %s; %s", what, took.Round(time.Millisecond), cpu, steps(last)))
}

// pid1CPU is the processor time of process 1, in the kernel's ticks of 10 ms.
func (m *Machine) pid1CPU() time.Duration {
	m.t.Helper()
	stat := m.ReadFile("/proc/1/stat")
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		m.t.Fatalf("/proc/1/stat: %q", stat)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// dropin replaces the drop-in of the unit.
func (s *service) dropin(text string) {
	s.t.Helper()
	s.WriteFile("/etc/systemd/system/"+s.unit+".d/test.conf", text)
	s.Systemctl("daemon-reload")
}
