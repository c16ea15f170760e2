package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// commandTimeout bounds every command that a scenario runs in the container.
const commandTimeout = 2 * time.Minute

// emulated is how much longer everything may take in a virtual machine without hardware support.
const emulated = 10

// Result is what a command did.
type Result struct {
	Stdout, Stderr string
	// Code is the exit status, -1 where the command was ended by a signal or its deadline.
	Code int
	Took time.Duration
}

// Try runs a command in all namespaces of the container, as root, and returns what it did.
func (m *Machine) Try(args ...string) Result {
	m.t.Helper()
	r := m.try(nil, args...)
	if r.Code < 0 {
		m.t.Errorf("%s: %s", strings.Join(args, " "), r.Stderr)
	}
	return r
}

// Run is Try for a command that must succeed. It returns its standard output without the last newline.
func (m *Machine) Run(args ...string) string {
	m.t.Helper()
	r := m.Try(args...)
	if r.Code != 0 {
		m.t.Fatalf("%s: exit %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return strings.TrimSuffix(r.Stdout, "\n")
}

// Sh runs a shell script that must succeed (sh -e) and returns its standard output.
func (m *Machine) Sh(script string) string {
	m.t.Helper()
	return m.Run("sh", "-ec", script)
}

// Start runs a command in the background and returns its result later.
func (m *Machine) Start(args ...string) <-chan Result {
	result := make(chan Result, 1)
	go func() { result <- m.try(nil, args...) }()
	return result
}

func (c *container) try(stdin []byte, args ...string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	if !c.local {
		args = append([]string{"nsenter", "-t", strconv.Itoa(c.pid1), "-a", "--"}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0", "HOME=/root"}
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	r := Result{Stdout: stdout.String(), Stderr: stderr.String(), Took: time.Since(start)}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit) && exit.Exited():
		r.Code = exit.ExitCode()
	default:
		r.Code, r.Stderr = -1, fmt.Sprintf("%s%v after %s", r.Stderr, err, r.Took)
	}
	return r
}

// WriteFile writes a file of the container, directories above it included. It replaces by rename, so that a reader
// sees the old or the new content.
func (m *Machine) WriteFile(path, content string) {
	m.t.Helper()
	m.install(path, []byte(content), 0o644)
}

// InstallBinary copies a program of the host into the container.
func (m *Machine) InstallBinary(hostPath, path string) {
	m.t.Helper()
	content, err := os.ReadFile(hostPath)
	if err != nil {
		m.t.Fatal(err)
	}
	m.install(path, content, 0o755)
}

func (m *Machine) install(path string, content []byte, mode fs.FileMode) {
	m.t.Helper()
	target := m.Path(path)
	err := os.MkdirAll(filepath.Dir(target), 0o755)
	if err == nil {
		err = os.WriteFile(target+".new", content, mode)
	}
	if err == nil {
		err = os.Rename(target+".new", target)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// ReadFile reads a file of the container, /proc included (with the container's process ids).
func (m *Machine) ReadFile(path string) string {
	m.t.Helper()
	content, err := os.ReadFile(m.Path(path))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(content)
}

// Exists reports whether the container has path.
func (m *Machine) Exists(path string) bool {
	_, err := os.Lstat(m.Path(path))
	return err == nil
}

// Remove removes files of the container; that one is missing is no error.
func (m *Machine) Remove(paths ...string) {
	m.t.Helper()
	for _, p := range paths {
		if err := os.RemoveAll(m.Path(p)); err != nil {
			m.t.Error(err)
		}
	}
}

// Eventually polls until check returns "" and fails the test with its last words after the deadline.
func (m *Machine) Eventually(deadline time.Duration, check func() string) {
	m.t.Helper()
	if m.local {
		deadline *= emulated
	}
	end := time.Now().Add(deadline)
	for {
		words := check()
		if words == "" {
			return
		}
		if time.Now().After(end) {
			m.t.Fatalf("after %s still: %s", deadline, words)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
