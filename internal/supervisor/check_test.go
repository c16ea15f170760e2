package supervisor_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/pkg/worker"
)

// serving is the pid of the only generation that is not gone.
func (s *service) serving() (pid, generation int) {
	s.t.Helper()
	st := s.status()
	for _, g := range st.Generations {
		if g.State == "serving" {
			return g.PID, g.N
		}
	}
	s.t.Fatalf("no generation serves: %+v", st.Generations)
	return 0, 0
}

// eventually waits until check returns nothing.
func (s *service) eventually(check func() string) {
	s.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		problem := check()
		if problem == "" {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatal(problem)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// one tells which generation serves; the problem is that another is not gone, or that there are other processes.
func (s *service) one() (pid, generation int, problem string) {
	s.t.Helper()
	st := s.status()
	for _, g := range st.Generations {
		switch g.State {
		case "serving":
			if pid != 0 {
				return 0, 0, "two generations serve"
			}
			pid, generation = g.PID, g.N
		case "gone":
		default:
			return 0, 0, fmt.Sprintf("generation %d is %s", g.N, g.State)
		}
	}
	if st.State != "serving" {
		return 0, 0, "the service is " + st.State
	}
	if diff := cmp.Diff([]int{pid}, s.processes()); diff != "" {
		return 0, 0, "processes: " + diff
	}
	return pid, generation, ""
}

// settled waits until one generation serves, all others are gone, its processes are all there are, and the store holds
// what it should and nothing else: extra are further sockets' entries.
func (s *service) settled(extra ...string) (pid, generation int) {
	s.t.Helper()
	s.eventually(func() (problem string) {
		if pid, generation, problem = s.one(); problem != "" {
			return problem
		}
		want := append([]string{
			fmt.Sprint("supervisor.notify.", generation), "supervisor.socket.http", "supervisor.state", fmt.Sprint("supervisor.worker.", generation),
		}, extra...)
		want = append(want, "supervisor.alternate.http")
		if s.binds {
			want = append(want, fmt.Sprint("supervisor.bind.", generation))
		}
		slices.Sort(want)
		s.barrier()
		names := s.manager.Names()
		for i := range names { // of "http" it depends on the slot of its first worker
			names[i] = strings.Replace(names[i], "supervisor.alternate-first.http", "supervisor.alternate.http", 1)
		}
		slices.Sort(names)
		return cmp.Diff(want, names)
	})
	return pid, generation
}

// processes are all workers of this service, whoever knows of them.
func (s *service) processes() []int {
	tree := worker.Tree{Marker: "SUPERVISOR_GENERATION=" + s.name + "/"}
	pids, err := tree.PIDs()
	if err != nil {
		s.t.Fatal(err)
	}
	return pids
}

// warnings are the lines of the log that warn of something with all the words.
func (s *service) warnings(words ...string) (lines []string) {
	for line := range strings.Lines(s.log()) {
		if strings.Contains(line, "level=WARN") && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			lines = append(lines, line)
		}
	}
	return lines
}
