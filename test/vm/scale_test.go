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
	})
	if after := m.listeners(20000, 20000+listeners); !slices.Equal(before, after) {
		t.Errorf("%d listeners after reload and restart, %d of them the same", len(after), len(common(before, after)))
	}
})

// Ten thousand sockets and a quick worker.
var _ = scenario("k-ten-thousand-sockets", func(t *testing.T, m *Machine) {
	const listeners = 10000
	if limit, err := strconv.Atoi(m.Run("sh", "-c", "ulimit -Hn")); err == nil && limit < listeners+5000 {
		t.Skipf("this machine allows only %d descriptors", limit)
	}
	var tables strings.Builder
	for i := range listeners {
		tables.WriteString(socketTable(fmt.Sprintf("s%d", i), fmt.Sprintf("127.0.0.1:%d", 20000+i)))
	}
	toml := goWorker("many", tables.String())
	s := m.service("many", replace(t, toml, "[drain]", "[drain]\ndivert = \"none\""), "[Service]\nLimitNOFILE=20000\n")
	s.arguments("-accept=epoll")
	s.timed("k 10,000 sockets, start", func() { s.start() })
	before := m.listeners(20000, 20000+listeners)
	if len(before) != listeners {
		t.Fatalf("%d listeners", len(before))
	}
	s.underLoad("k 10,000 sockets", tcp(25000), map[load.Class]int{load.New: 2}, func() {
		s.timed("k 10,000 sockets, reload", s.reload)
		s.drained(1)
		s.timed("k 10,000 sockets, restart", func() { m.Systemctl("restart", s.unit) })
	})
	if after := m.listeners(20000, 20000+listeners); !slices.Equal(before, after) {
		t.Errorf("%d listeners after reload and restart, %d of them the same", len(after), len(common(before, after)))
	}
})

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

func common(a, b []uint64) []uint64 {
	return slices.DeleteFunc(slices.Clone(a), func(x uint64) bool { return !slices.Contains(b, x) })
}

// timed notes how long do took, the processor time that systemd itself used for it, and the steps of the last handoff.
func (s *service) timed(what string, do func()) {
	s.t.Helper()
	before, start := s.pid1CPU(), time.Now()
	do()
	took := time.Since(start)
	cpu := s.pid1CPU() - before
	s.note(fmt.Sprintf("%s: %s, PID 1 %s; %s", what, took.Round(time.Millisecond), cpu, s.steps()))
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
