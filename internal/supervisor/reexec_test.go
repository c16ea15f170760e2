package supervisor_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/control"
)

// installed gives the service a binary of its own, which can be replaced.
func (s *service) installed() {
	s.t.Helper()
	source := s.binary
	s.binary = filepath.Join(s.dir, "supervisor")
	s.upgrade(source)
}

// upgrade puts a copy of source in the place of the binary, as a package manager does.
func (s *service) upgrade(source string) {
	s.t.Helper()
	in, err := os.Open(source)
	if err != nil {
		s.t.Fatal(err)
	}
	defer in.Close()
	temp := s.binary + ".new"
	out, err := os.OpenFile(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if e := out.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(temp, s.binary)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// script puts a shell script in the place of the binary.
func (s *service) script(text string, mode os.FileMode) {
	s.t.Helper()
	temp := s.binary + ".new"
	err := os.WriteFile(temp, []byte(text), mode)
	if err == nil {
		err = os.Chmod(temp, mode)
	}
	if err == nil {
		err = os.Rename(temp, s.binary)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// reexec asks for it and returns the answer.
func (s *service) reexec() control.Result {
	s.t.Helper()
	c := s.dial()
	defer c.Close()
	r, err := c.Reexec(s.ctx(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// reexeced waits until the new program answers.
func (s *service) reexeced() {
	s.t.Helper()
	before := s.status()
	if r := s.reexec(); !r.OK {
		s.t.Fatal(r.Error)
	}
	s.reexecedSince(before)
}

// reexecedSince waits until another program answers than before.
func (s *service) reexecedSince(before control.Status) {
	s.t.Helper()
	s.eventually(func() string {
		c, err := control.Dial(s.ctx(), s.runtime())
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		after, err := c.Status(s.ctx())
		switch {
		case err != nil:
			return err.Error()
		case after.PID != before.PID:
			s.t.Fatalf("pid %d became %d", before.PID, after.PID)
		case !after.Started.After(before.Started):
			return "the old program still answers"
		}
		return ""
	})
}

// Another binary in the same process: nothing else changes, ten times in a row.
func TestReexec(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.installed()
	original := s.binary + ".original"
	if err := os.Link(s.binary, original); err != nil {
		t.Fatal(err)
	}
	s.arguments("-push=blob")
	s.start()
	load := s.load()
	pid, n := s.settled("supervisor.pushed.blob")
	before, names, held := s.status(), s.manager.Names(), s.fds()
	for i := range 10 {
		if i%5 == 0 {
			s.upgrade(original)
		}
		s.reexeced()
		if newPID, newN := s.settled("supervisor.pushed.blob"); newPID != pid || newN != n {
			t.Fatalf("generation %d (pid %d) became %d (pid %d)", n, pid, newN, newPID)
		}
	}
	if diff := cmp.Diff(names, s.manager.Names()); diff != "" {
		t.Errorf("store: %s", diff)
	}
	if diff := cmp.Diff(held, s.fds()); diff != "" {
		t.Errorf("held: %s", diff)
	}
	if after := s.status(); after.Since != before.Since || len(after.Handoffs) != len(before.Handoffs) {
		t.Errorf("before: %+v\nafter: %+v", before, after)
	}
	s.arguments()
	s.reload()
	s.kill()
	s.start()
	s.reload()
	s.settled("supervisor.pushed.blob")
	if w := s.warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	load.end()
	s.stop()
}

// Draining generations go on draining, and the exit of a worker is still collected.
func TestReexecWhileDraining(t *testing.T) {
	t.Parallel()
	s := newService(t, "[drain]\nsettle = \"20ms\"\ntimeout = \"1h\"\n")
	s.installed()
	stay := filepath.Join(s.dir, "stay")
	if err := os.WriteFile(stay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.arguments("-drain-while=" + stay)
	s.start()
	load := s.load()
	for range 2 {
		if r, err := s.try(false); err != nil || !r.OK {
			t.Fatal(r, err)
		}
	}
	s.reexeced()
	s.reexeced()
	states := ""
	for _, g := range s.status().Generations {
		states += g.State + " "
	}
	if states != "serving draining draining " {
		t.Errorf("right after: %s", states)
	}
	if err := os.Remove(stay); err != nil {
		t.Fatal(err)
	}
	s.settled()
	for _, g := range s.status().Generations[1:] {
		if g.Exit != "drained: exit code 0" {
			t.Errorf("generation %d: %q", g.N, g.Exit)
		}
	}
	load.end()
	s.stop()
}

// During a handoff the upgrade waits for its result.
func TestReexecDuringReload(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.installed()
	s.start()
	s.settled()
	goOn := s.paused()
	done := make(chan control.Result, 1)
	go func() {
		r, err := s.try(false)
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	s.underWay()
	before := s.status()
	c := s.dial()
	r, err := c.Reexec(s.ctx(), func(e control.Event) {
		if strings.Contains(e.Text, "a handoff is under way") {
			goOn()
		}
	})
	c.Close()
	if err != nil || !r.OK {
		t.Fatalf("%+v, %v", r, err)
	}
	s.reexecedSince(before)
	if r := <-done; !r.OK || r.Generation != 2 {
		t.Errorf("reload: %+v", r)
	}
	s.settled()
	s.stop()
}

// A binary that cannot take over is refused, and the old program stays in charge.
func TestReexecBroken(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.installed()
	original := s.binary + ".original"
	if err := os.Link(s.binary, original); err != nil {
		t.Fatal(err)
	}
	s.start()
	load := s.load()
	pid, _ := s.settled()
	for _, c := range []struct {
		name string
		put  func()
		word string
	}{
		{"missing", func() { os.Remove(s.binary) }, "no such file"},
		{"not executable", func() { s.script("#!/bin/sh\n", 0o644) }, "permission denied"},
		{"no program", func() { s.script("nonsense\n", 0o755) }, "exec format error"},
		{"exits at once", func() { s.script("#!/bin/sh\necho wrong libc; exit 1\n", 0o755) }, "wrong libc"},
		{"dies", func() { s.script("#!/bin/sh\nkill -SEGV $$\n", 0o755) }, "SIGSEGV"},
		{"knows an older format", func() { s.script("#!/bin/sh\necho state has format 1, this supervisor knows up to 0; exit 1\n", 0o755) }, "knows up to 0"},
	} {
		started := s.status().Started
		c.put()
		r := s.reexec()
		if r.OK || !strings.Contains(r.Error, c.word) || !strings.Contains(r.Error, "this one stays in charge") {
			t.Errorf("%s: %+v", c.name, r)
		}
		if st := s.status(); !st.Started.Equal(started) {
			t.Errorf("%s: the program was replaced", c.name)
		}
		if now, _ := s.settled(); now != pid {
			t.Errorf("%s: worker %d became %d", c.name, pid, now)
		}
		s.reload()
		pid, _ = s.settled()
	}
	s.upgrade(original)
	s.reexeced()
	s.reload()
	s.settled()
	load.end()
	s.stop()
}

// A binary that passes the trial and then fails is what SIGKILL is: the manager starts it again, and it adopts.
func TestReexecDies(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.installed()
	original := s.binary + ".original"
	if err := os.Link(s.binary, original); err != nil {
		t.Fatal(err)
	}
	s.start()
	load := s.load()
	pid, n := s.settled()
	s.script("#!/bin/sh\n[ \"$1\" = preflight ] || kill -KILL $$\n", 0o755)
	if r := s.reexec(); !r.OK {
		t.Fatal(r)
	}
	if exit := s.ended(); exit.Signal != syscall.SIGKILL {
		t.Errorf("exit %+v", exit)
	}
	s.upgrade(original)
	s.start()
	if newPID, newN := s.settled(); newPID != pid || newN != n {
		t.Errorf("generation %d (pid %d) became %d (pid %d)", n, pid, newN, newPID)
	}
	load.end()
	s.stop()
}

// More sockets than have entries of their own.
func TestReexecBundle(t *testing.T) {
	t.Parallel()
	const count = 150
	s := newService(t, unitOnly)
	s.manager.SetMax(140) // far fewer than there are sockets
	s.many(count)
	s.start()
	pid, _ := s.serving()
	s.barrier()
	names := s.manager.Names()
	for range 2 {
		s.reexeced()
		s.barrier()
		if diff := cmp.Diff(len(names), len(s.manager.Names())); diff != "" {
			t.Errorf("store: %s", diff)
		}
		s.kill()
		s.start()
		if now, _ := s.serving(); now != pid || len(s.fds().Sockets) != count {
			t.Errorf("worker %d became %d, %d sockets", pid, now, len(s.fds().Sockets))
		}
	}
	s.reload()
	if got := len(s.fds().Sockets); got != count {
		t.Errorf("%d sockets of %d", got, count)
	}
	if w := s.warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	began := time.Now()
	s.stop()
	t.Logf("stop took %s", time.Since(began))
}
