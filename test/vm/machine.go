package vm

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

// bootTimeout bounds a boot, which takes 1 to 3 s.
const bootTimeout = 60 * time.Second

// Machine is a booted container, bound to the test that uses it: what its methods cannot do fails that test.
type Machine struct {
	*container
	t testing.TB
}

type container struct {
	// Suite is the Debian suite; Systemd is the major version of its systemd.
	Suite   string
	Systemd int

	// local is set where the tests run on the machine itself, as in the virtual machine.
	local   bool
	pid1    int
	group   string
	netns   *sys.FD
	console *lockedBuffer
	gone    chan struct{}
}

// Boot boots a container of suite with the programs under test installed. It ends with the test.
func Boot(t testing.TB, suite string) *Machine { return BootVariant(t, suite, "base") }

// BootVariant is Boot for a larger root (roots/packages.sh).
func BootVariant(t testing.TB, suite, variant string) *Machine {
	t.Helper()
	root, err := Root(suite, variant)
	if err != nil {
		t.Fatal(err)
	}
	built, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	c, err := boot(suite, root)
	if err != nil {
		t.Fatalf("boot %s: %v", suite, err)
	}
	t.Cleanup(c.shutdown)
	m := &Machine{container: c, t: t}
	for name, path := range built {
		m.InstallBinary(path, "/usr/bin/"+name)
	}
	m.installUnits(unitsDir())
	return m
}

// installUnits copies the project's units of dir into the machine.
func (m *Machine) installUnits(dir string) {
	m.t.Helper()
	units, _ := filepath.Glob(filepath.Join(dir, "*.service"))
	for _, path := range units {
		content, err := os.ReadFile(path)
		if err != nil {
			m.t.Fatal(err)
		}
		m.WriteFile("/etc/systemd/system/"+filepath.Base(path), string(content))
	}
	m.Systemctl("daemon-reload")
}

// With returns the same machine bound to another test.
func (m *Machine) With(t testing.TB) *Machine { return &Machine{container: m.container, t: t} }

// Local returns the machine that this process runs on, whose process 1 must be systemd, with the programs under test
// installed from dir. It changes that machine, so it is for throw-away ones.
func Local(t testing.TB, dir string) *Machine {
	t.Helper()
	c := &container{Suite: "local", local: true, pid1: 1, console: &lockedBuffer{}}
	if err := c.settle(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.netns.Close() })
	m := &Machine{container: c, t: t}
	for name := range builds {
		m.InstallBinary(filepath.Join(dir, name), "/usr/bin/"+name)
	}
	m.installUnits(dir)
	return m
}

func boot(suite, root string) (*container, error) {
	name := machineName(suite)
	group, err := newGroup(name)
	if err != nil {
		return nil, fmt.Errorf("make control group: %w", err)
	}
	c := &container{Suite: suite, group: group, console: &lockedBuffer{}, gone: make(chan struct{})}
	if err := c.start(root, name); err != nil {
		removeGroup(group)
		return nil, fmt.Errorf("%w; console:\n%s", err, c.console)
	}
	return c, nil
}

// start runs systemd-nspawn and waits until the system in it is up.
func (c *container) start(root, name string) error {
	dir, err := os.Open(c.group)
	if err != nil {
		return err
	}
	defer dir.Close()
	cmd := exec.Command("systemd-nspawn", "-D", root, "--volatile=overlay", "--register=no", "--keep-unit", "--boot",
		"--console=read-only", "--private-network", "--system-call-filter=pidfd_getfd", "--machine="+name)
	// Without this variable systemd 257 and later refuse a host with cgroup v1 hierarchies.
	cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1")
	cmd.Stdout, cmd.Stderr = c.console, c.console
	// A test process that dies must not leave a container behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	started := make(chan error)
	go func() {
		// Pdeathsig is sent when the thread that forked ends, so that thread waits here.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(c.gone)
	}()
	if err := <-started; err != nil {
		return err
	}
	if err := c.await(cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		<-c.gone
		return err
	}
	return nil
}

var booted atomic.Int64

// machineName is unique on this host.
func machineName(suite string) string {
	return fmt.Sprintf("%s-%d-%d", suite, os.Getpid(), booted.Add(1))
}

// await waits until the container's systemd says that it is up.
func (c *container) await(nspawn int) error {
	deadline := time.Now().Add(bootTimeout)
	var last string
	for ; time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case <-c.gone:
			return fmt.Errorf("systemd-nspawn ended")
		default:
		}
		if c.pid1 = findInit(nspawn); c.pid1 == 0 {
			continue
		}
		r := c.try(nil, "systemctl", "is-system-running", "--wait")
		if last = strings.TrimSpace(r.Stdout); last == "running" || last == "degraded" {
			return c.settle()
		}
	}
	return fmt.Errorf("not up after %s (%s)", bootTimeout, last)
}

func (c *container) settle() error {
	version := c.try(nil, "systemctl", "--version")
	if _, err := fmt.Sscanf(version.Stdout, "systemd %d", &c.Systemd); err != nil {
		return fmt.Errorf("version of systemd: %w in %q", err, version.Stdout)
	}
	var err error
	c.netns, err = sys.OpenNetns(fmt.Sprintf("/proc/%d/ns/net", c.pid1))
	return err
}

// findInit returns the child of systemd-nspawn that is process 1 of its own namespace and has become systemd, or 0.
func findInit(nspawn int) int {
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", nspawn, nspawn))
	for _, child := range strings.Fields(string(children)) {
		status, _ := os.ReadFile("/proc/" + child + "/status")
		exe, _ := os.Readlink("/proc/" + child + "/exe")
		for line := range strings.Lines(string(status)) {
			f := strings.Fields(line)
			if len(f) == 3 && f[0] == "NSpid:" && f[2] == "1" && strings.HasSuffix(exe, "/systemd") {
				pid, _ := strconv.Atoi(child)
				return pid
			}
		}
	}
	return 0
}

// shutdown ends the container at once. [Machine.PowerOff] is the polite way.
func (c *container) shutdown() {
	if c.pid1 != 0 {
		_ = syscall.Kill(c.pid1, syscall.SIGKILL)
	}
	<-c.gone
	c.netns.Close()
	removeGroup(c.group)
}

// PowerOff asks the container's systemd to power off and waits until it is gone.
func (m *Machine) PowerOff() {
	m.t.Helper()
	const poweroff = syscall.Signal(34 + 4) // SIGRTMIN+4, systemd(1)
	if err := syscall.Kill(m.pid1, poweroff); err != nil {
		m.t.Fatalf("power off: %v", err)
	}
	select {
	case <-m.gone:
	case <-time.After(2 * time.Minute):
		m.t.Fatalf("power off: still up after 2 minutes; console:\n%s", m.console)
	}
	m.pid1 = 0
}

// Path is where a path inside the container is found from outside.
func (c *container) Path(path string) string {
	if c.local {
		return path
	}
	return filepath.Join(fmt.Sprintf("/proc/%d/root", c.pid1), path)
}

// lockedBuffer is a bytes.Buffer that one goroutine may write while another reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
