package divert_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/divert"
	"github.com/8265a91a/supervisor/internal/sys"
)

// process is a child of the test: the test binary in another role, with descriptors from 3 on.
type process struct {
	pid int
	out *os.File
	end func() error
}

// spawn starts the role as uid with borrowed descriptors, and kills it when the test ends.
func spawn(t testing.TB, role string, uid uint32, fds ...*sys.FD) *process {
	t.Helper()
	r, w, err := sys.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	files := []uintptr{0, uintptr(w.Num()), 2}
	for _, fd := range fds {
		files = append(files, uintptr(fd.Num()))
	}
	attr := &syscall.ProcAttr{Files: files, Env: append(os.Environ(), "DIVERT_TEST_ROLE="+role)}
	if uid != 0 {
		attr.Sys = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	// By this link another user may run it wherever it lies.
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args[:1], attr)
	if err != nil {
		r.Close()
		t.Fatal(err)
	}
	p := &process{pid: pid, out: r.File("output of " + role)}
	ended := false
	p.end = func() error {
		if ended {
			return nil
		}
		ended = true
		var status syscall.WaitStatus
		_, err := syscall.Wait4(pid, &status, 0, nil)
		p.out.Close()
		if err == nil && status.ExitStatus() != 0 {
			err = fmt.Errorf("exit status %d", status.ExitStatus())
		}
		return err
	}
	t.Cleanup(func() {
		if !ended {
			p.kill()
		}
	})
	return p
}

func (p *process) kill() {
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
	_ = p.end()
}

// pidfd is closed when the test ends.
func (p *process) pidfd(t testing.TB) *sys.FD {
	t.Helper()
	fd, err := sys.PidfdOpen(p.pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fd.Close() })
	return fd
}

// output waits for the end of the child and returns what it said.
func (p *process) output() (string, error) {
	out, err := io.ReadAll(p.out)
	return string(out), errors.Join(err, p.end())
}

// await returns the child's next line.
func (p *process) await(t testing.TB) string {
	t.Helper()
	_ = p.out.SetReadDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(p.out).ReadString('\n')
	if err != nil {
		t.Fatalf("child said nothing: %v", err)
	}
	return strings.TrimSpace(line)
}

// received takes descriptor N of a child that printed N.
func received(t testing.TB, p *process) *sys.FD {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(p.await(t), &n); err != nil {
		t.Fatal(err)
	}
	pidfd, err := sys.PidfdOpen(p.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer pidfd.Close()
	fd, err := sys.PidfdGetfd(pidfd.Num(), n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fd.Close() })
	p.kill()
	return fd
}

// child is the main of the roles.
func child(role string) int {
	switch role {
	case "join":
		return childJoin()
	case "bind":
		return childBind()
	case "serve":
		return childServe()
	case "epoll":
		return childEpoll()
	case "accept":
		return childAccept()
	case "hold":
		return childHold()
	case "wait":
		fmt.Println("ready")
		pause()
	case "fence":
		return childFence()
	}
	fmt.Println("unknown role", role)
	return 2
}

func childJoin() int {
	_, err := divert.Join(3)
	if errors.Is(err, divert.ErrOtherOwner) {
		fmt.Println("other owner:", err)
		return 0
	}
	fmt.Println(err)
	return 1
}

func childBind() int {
	fd, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(fd.Num())
	pause()
	return 0
}

// childServe answers C with Go's own poller.
func childServe() int {
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return 1
		}
		go answer(c)
	}
}

// childEpoll registers the listener under many numbers, each with data of its own, and answers C on one thread.
func childEpoll() int {
	const first, last = 4, 40
	listener, err := syscall.Dup(3)
	for n := first; n <= last && err == nil; n++ {
		// Whatever the runtime has there stays where it is.
		if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(n), syscall.F_GETFD, 0); errno != 0 {
			err = syscall.Dup3(listener, n, syscall.O_CLOEXEC)
		}
	}
	ep, err2 := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err = errors.Join(err, err2, syscall.SetNonblock(3, true)); err != nil {
		fmt.Println(err)
		return 1
	}
	for n := 3; n <= last; n++ {
		if inode, _ := sys.Inode(n); inode != must(sys.Inode(3)) {
			continue
		}
		event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(n), Pad: -7}
		if err := syscall.EpollCtl(ep, syscall.EPOLL_CTL_ADD, n, &event); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	fmt.Println("ready")
	events := make([]syscall.EpollEvent, 1)
	for {
		n, _ := syscall.EpollWait(ep, events, -1)
		if n < 1 {
			continue
		}
		if events[0].Pad != -7 {
			fmt.Fprintln(os.Stderr, "event came with other data")
			return 1
		}
		if c, _, err := syscall.Accept(int(events[0].Fd)); err == nil {
			_, _ = syscall.Read(c, make([]byte, 1))
			_, _ = syscall.Write(c, []byte("C"))
			syscall.Close(c)
		}
	}
}

// childFence has a pidfd of somebody else's worker.
func childFence() int {
	pid, err := sys.PidfdPID(4)
	if err == nil {
		inode := must(sys.Inode(3))
		_, left := divert.Fence([]int{pid}, []uint64{inode})
		err = left[inode]
	}
	if errors.Is(err, divert.ErrPermission) {
		return 0
	}
	fmt.Println(err)
	return 1
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// childAccept sleeps in accept.
func childAccept() int {
	fmt.Println("ready")
	for {
		c, _, err := syscall.Accept(3)
		if err != nil {
			return 1
		}
		_, _ = syscall.Read(c, make([]byte, 1))
		_, _ = syscall.Write(c, []byte("C"))
		syscall.Close(c)
	}
}

// childHold accepts from descriptor 3 for ever and keeps each connection until its client closes it.
func childHold() int {
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return 1
		}
		go func() {
			defer c.Close()
			_, _ = c.Write([]byte("H"))
			_, _ = io.Copy(io.Discard, c)
		}()
	}
}

func answer(c net.Conn) {
	defer c.Close()
	_, _ = c.Read(make([]byte, 1))
	_, _ = c.Write([]byte("C"))
}

// pause waits for the end. With nothing else to do the runtime would call it a deadlock.
func pause() {
	for {
		_ = syscall.Pause()
	}
}
