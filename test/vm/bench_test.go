//go:build vm

package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const benchRounds = 7

// TestBench prints the figures of the budget beside what kernel and worker need without a supervisor.
func TestBench(t *testing.T) {
	if inside() {
		t.Skip("the figures are those of a container")
	}
	m := Boot(t, "trixie")
	b := &bench{Machine: m}
	for _, n := range []int{5, 1000, 10000} {
		b.reload(n)
	}
	for _, n := range []int{5, 1000} {
		b.fetch(n)
	}
	for _, divert := range []string{"none", "fence", "steer"} {
		b.diverted(divert)
	}
	b.probe()
	b.idle()
	b.killed()
	b.adoption()
	// The floor is a Go program that uses the same package for sockets.
	b.row("binary", b.size("supervisor"), "bare Go "+b.size("bench"), "5 MB")
	fmt.Printf("\n%-52s %-12s %-26s %s\n%s\n%s", "figure", "measured", "floor", "budget", strings.Repeat("-", 104), b.table.String())
	fmt.Printf("\nsystemd %d, %s processors, median of %d\n", m.Systemd, strings.TrimSpace(m.Run("nproc")), benchRounds)
}

type bench struct {
	*Machine
	table strings.Builder
}

func (b *bench) row(figure, measured, floor, budget string) {
	fmt.Fprintf(&b.table, "%-52s %-12s %-26s %s\n", figure, measured, floor, budget)
}

// service starts a worker with so many sockets; changes are pairs of old and new text of its configuration.
func (b *bench) service(name string, sockets, port int, changes ...string) *service {
	var tables strings.Builder
	for i := range sockets {
		tables.WriteString(socketTable(fmt.Sprintf("s%d", i), fmt.Sprintf("127.0.0.1:%d", port+i)))
	}
	toml := goWorker(name, tables.String())
	toml = replace(b.t, toml, "[drain]", "[drain]\ndivert = \"none\"")
	toml = replace(b.t, toml, `settle = "100ms"`, `settle = "0s"`)
	for i := 0; i < len(changes); i += 2 {
		toml = replace(b.t, toml, changes[i], changes[i+1])
	}
	s := b.Machine.service(name, toml, "[Service]\nLimitNOFILE=20000\n")
	s.arguments("-accept=epoll")
	return s.start()
}

func (b *bench) reload(sockets int) {
	s := b.service(fmt.Sprintf("bench%d", sockets), sockets, 20000)
	defer s.TrySystemctl("stop", s.unit)
	var own, whole, pid1 []time.Duration
	for range benchRounds {
		before := s.pid1CPU()
		took, total := b.once(s)
		pid1 = append(pid1, s.pid1CPU()-before)
		own, whole = append(own, total-took["check"]-took["ready"]), append(whole, took["spawn"]+took["ready"])
	}
	floor := b.floor(sockets)
	budget := map[int]string{5: "5ms", 1000: "50ms", 10000: "500ms"}[sockets]
	of := fmt.Sprintf(", %d sockets", sockets)
	b.row("reload, the supervisor's own share"+of, ms(middle(own)), "SCM_RIGHTS trip "+ms(floor.trip), budget)
	b.row("reload, spawn until ready"+of, ms(middle(whole)), "bare "+ms(floor.ready), "")
	b.row("reload, processor time of PID 1"+of, ms(middle(pid1)), "", "10ms")
}

// once reloads the service and waits for the end of the old generation. It returns what each step took, the drain's included,
// and the whole until the new one served.
func (b *bench) once(s *service) (took map[string]time.Duration, total time.Duration) {
	b.t.Helper()
	if r := s.supervisor("reload", s.name, "--drained"); r.Code != 0 {
		b.t.Fatalf("reload of %s: %s", s.name, r.Stderr)
	}
	trace := s.status().Handoffs[0]
	took = map[string]time.Duration{}
	for _, step := range trace.Steps {
		took[step.Name] = time.Duration(step.Took)
	}
	return took, time.Duration(trace.Took)
}

// diverted is what it costs to keep connections from the old generation, without drain.settle.
func (b *bench) diverted(mode string) {
	s := b.service("bench"+mode, 5, 20000, `divert = "none"`, fmt.Sprintf("divert = %q", mode))
	defer s.TrySystemctl("stop", s.unit)
	var own, divert []time.Duration
	for range benchRounds {
		took, total := b.once(s)
		own, divert = append(own, total-took["check"]-took["ready"]), append(divert, took["divert"])
		if g := s.status().Generations[1]; g.Divert != mode {
			b.t.Fatalf("divert = %q: generation %d was drained with %q", mode, g.N, g.Divert)
		}
	}
	b.row(fmt.Sprintf("reload with divert = %q, own share, 5 sockets", mode), ms(middle(own)), "", "")
	b.row(fmt.Sprintf("reload with divert = %q, its divert step", mode), ms(middle(divert)), "", "")
}

// probe is what it costs to look whether the worker listens, while it starts for a second.
func (b *bench) probe() {
	var cpu []time.Duration
	for _, when := range []string{"listening", "notify"} {
		s := b.service("bench"+when, 5, 20000, `["notify"]`, fmt.Sprintf("[%q]", when))
		s.arguments("-start-delay=1s")
		var used []time.Duration
		for range benchRounds {
			before := s.cpu()
			b.once(s)
			used = append(used, s.cpu()-before)
		}
		cpu = append(cpu, middle(used))
		s.TrySystemctl("stop", s.unit)
	}
	b.row("processor time, worker starts 1 s, ready = listening", ms(cpu[0]), "ready = notify "+ms(cpu[1]), "")
}

// cpu is the processor time of all threads of the supervisor, in nanoseconds as the kernel counts them.
func (s *service) cpu() (sum time.Duration) {
	s.t.Helper()
	for line := range strings.Lines(s.Sh(fmt.Sprintf("cat /proc/%d/task/*/schedstat", s.MainPID(s.unit)))) {
		ns, err := strconv.ParseInt(strings.Fields(line)[0], 10, 64)
		if err != nil {
			s.t.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// floors are what kernel and worker need with so many sockets when nothing is in between (test/bench).
type floors struct {
	spawn, ready, trip time.Duration
	memory             int // KiB
}

func (b *bench) floor(sockets int) (f floors) {
	b.t.Helper()
	said := b.Sh(fmt.Sprintf("ulimit -n 20000; bench %d worker -any-pid -accept epoll | tail -n1", sockets))
	if _, err := fmt.Sscan(said, &f.spawn, &f.ready, &f.trip, &f.memory); err != nil {
		b.t.Fatalf("bench: %v: %s", err, said)
	}
	return f
}

func (b *bench) size(program string) string {
	b.t.Helper()
	info, err := os.Stat(b.Path("/usr/bin/" + program))
	if err != nil {
		b.t.Fatal(err)
	}
	return fmt.Sprintf("%.1f MB", float64(info.Size())/1e6)
}

// fetch is what it takes to ask HAProxy for its sockets, the old one and then the new one.
func (b *bench) fetch(sockets int) {
	s := b.haproxy(fmt.Sprintf("benchha%d", sockets), binds(fmt.Sprintf("127.0.0.1:20000-%d", 20000+sockets-1)))
	b.WriteFile("/etc/systemd/system/"+s.unit+".d/test.conf", "[Service]\nLimitNOFILE=20000\n")
	b.Systemctl("daemon-reload")
	s.start()
	defer s.TrySystemctl("stop", s.unit)
	took := map[string][]time.Duration{}
	for range benchRounds {
		steps, _ := b.once(s)
		for name, d := range steps {
			took[name] = append(took[name], d)
		}
	}
	trip := "SCM_RIGHTS trip " + ms(b.floor(sockets).trip)
	of := fmt.Sprintf(", %d sockets", sockets)
	b.row("HAProxy, fetch from the old one"+of, ms(middle(took["fetch"])), trip, "")
	b.row("HAProxy, reconcile with the new one"+of, ms(middle(took["reconcile"])), trip, "")
}

func (b *bench) idle() {
	s := b.service("benchidle", 5, 20000)
	defer s.TrySystemctl("stop", s.unit)
	s.reload()
	s.drained(1)
	// The runtime gives memory back to the kernel for some seconds after work.
	time.Sleep(15 * time.Second)
	before := s.switches()
	const watch = 30 * time.Second
	time.Sleep(watch)
	wakeups := s.switches() - before
	b.row("idle, resident memory", megabytes(s.usage().rss), "bare Go "+megabytes(b.floor(5).memory), "6 MB")
	b.row("idle, wake-ups in 30 s of all threads", strconv.Itoa(wakeups), "watchdog: 2", "")
}

// switches is the number of times that a thread of the supervisor went to sleep.
func (s *service) switches() int {
	s.t.Helper()
	sum := 0
	pid := strconv.Itoa(s.MainPID(s.unit))
	for _, f := range strings.Fields(s.Sh("cat /proc/" + pid + "/task/*/status | awk '/^voluntary_ctxt/ {print $2}'")) {
		n, err := strconv.Atoi(f)
		if err != nil {
			s.t.Fatal(err)
		}
		sum += n
	}
	return sum
}

func (b *bench) killed() {
	s := b.service("benchkill", 5, 20000)
	defer s.TrySystemctl("stop", s.unit)
	var spawned, answered []time.Duration
	for range benchRounds {
		// The back-off of the restart begins anew only after a minute of serving, but a reload begins anew as well.
		s.reload()
		s.drained(1)
		old := s.answers("127.0.0.1:20000")
		pid := s.hostPID(old)
		start := time.Now()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			b.t.Fatal(err)
		}
		s.Eventually(20*time.Second, func() string {
			if pid, text := s.Worker("127.0.0.1:20000"); pid == 0 || pid == old {
				return text
			}
			return ""
		})
		answered = append(answered, time.Since(start))
		trace := s.status().Handoffs[0]
		at := trace.Started.Sub(start)
		for _, step := range trace.Steps {
			at += time.Duration(step.Took)
			if step.Name == "spawn" {
				break
			}
		}
		spawned = append(spawned, at)
	}
	floor := b.floor(5)
	b.row("worker killed, until the next is spawned", ms(middle(spawned)), "bare spawn "+ms(floor.spawn), "5ms")
	b.row("worker killed, until the next answers", ms(middle(answered)), "bare "+ms(floor.ready), "")
}

func (b *bench) adoption() {
	s := b.service("benchadopt", 5, 20000)
	defer s.TrySystemctl("stop", s.unit)
	var took []time.Duration
	for range benchRounds {
		s.killSupervisor()
		started, err1 := strconv.Atoi(s.Property(s.unit, "ExecMainStartTimestampMonotonic"))
		active, err2 := strconv.Atoi(s.Property(s.unit, "ActiveEnterTimestampMonotonic"))
		if err1 != nil || err2 != nil {
			b.t.Fatal(err1, err2)
		}
		took = append(took, time.Duration(active-started)*time.Microsecond)
	}
	b.row("adoption, exec until READY=1", ms(middle(took)), "bare "+ms(b.floor(5).ready), "50ms")
}

// hostPID is the host's number of a process of the container.
func (m *Machine) hostPID(pid int) int {
	m.t.Helper()
	home, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", m.pid1))
	if err != nil {
		m.t.Fatal(err)
	}
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		if ns, err := os.Readlink(dir + "/ns/pid"); err != nil || ns != home {
			continue
		}
		status, _ := os.ReadFile(dir + "/status")
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "NSpid:" && f[len(f)-1] == strconv.Itoa(pid) {
				n, _ := strconv.Atoi(filepath.Base(dir))
				return n
			}
		}
	}
	m.t.Fatalf("process %d of the container is not found", pid)
	return 0
}

func middle(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

func ms(d time.Duration) string {
	if d < time.Millisecond {
		return fmt.Sprintf("%.3f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.1f ms", float64(d)/1e6)
}

func megabytes(kib int) string { return fmt.Sprintf("%.1f MB", float64(kib)*1024/1e6) }
