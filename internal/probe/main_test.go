package probe_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/8265a91a/supervisor/internal/leaktest"
	"github.com/8265a91a/supervisor/internal/probe"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// role makes the test binary play a server that waits in the way the value names, once a line arrives on descriptor 0.
const role = "TEST_PROBE"

const limit = 20 * time.Second

const sysPoll = 7

func TestMain(m *testing.M) {
	if how := os.Getenv(role); how != "" {
		serve(how)
	}
	os.Exit(leaktest.Main(m))
}

// serve waits on descriptors 3 and up, and never returns.
func serve(how string) {
	fmt.Println("holding")
	bufio.NewReader(os.Stdin).ReadString('\n')
	count, _ := strconv.Atoi(os.Getenv("TEST_SOCKETS"))
	switch how {
	case "accept":
		syscall.Accept(3)
	case "recvfrom":
		syscall.Recvfrom(3, make([]byte, 10), 0)
	case "read":
		syscall.Read(3, make([]byte, 10))
	case "poll":
		set := make([]struct {
			fd              int32
			events, revents int16
		}, count)
		for i := range set {
			set[i].fd, set[i].events = int32(3+i), 1
		}
		syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&set[0])), uintptr(len(set)), 0, 0, 0, 0)
	case "old-poll": // amd64's
		set := []struct {
			fd              int32
			events, revents int16
		}{{3, 1, 0}}
		syscall.Syscall(sysPoll, uintptr(unsafe.Pointer(&set[0])), 1, 100_000)
	case "futex": // the descriptor where poll's set would be, and a number of entries where futex has its operation
		set := []uint32{3, 1}
		syscall.Syscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(&set[0])), 1<<7, 3, uintptr(unsafe.Pointer(&syscall.Timespec{Sec: 100})), 0, 0)
	case "write-poll": // waits on the sockets, but not for connections
		set := []struct {
			fd              int32
			events, revents int16
		}{{3, 4, 0}}
		syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&set[0])), 1, 0, 0, 0, 0)
	case "select":
		var set syscall.FdSet
		for i := range count {
			set.Bits[(3+i)/64] |= 1 << ((3 + i) % 64)
		}
		syscall.Select(3+count, &set, nil, nil, &syscall.Timeval{Sec: 100})
	case "epoll":
		for i := range count {
			f := os.NewFile(uintptr(3+i), "socket")
			if l, err := net.FileListener(f); err == nil {
				go l.Accept()
			} else if c, err := net.FilePacketConn(f); err == nil {
				go c.ReadFrom(make([]byte, 10))
			}
			f.Close()
		}
	}
	fmt.Println("over")
	time.Sleep(2 * time.Minute) // long enough to be ended by the test, and no longer if the test dies
	os.Exit(0)
}

// server is a process that holds sockets.
type server struct {
	*worker.Process
	in  *os.File
	out *bufio.Reader
}

// start starts a server that holds fds from 3 up and does not wait on them before go.
func start(t testing.TB, how string, fds []*sys.FD) *server {
	t.Helper()
	inR, inW, err := sys.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := sys.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	files := []int{inR.Num(), outW.Num(), 2}
	for _, fd := range fds {
		files = append(files, fd.Num())
	}
	p, err := worker.Start(worker.Command{Argv: []string{"/proc/self/exe"}, Files: files,
		Env: []string{role + "=" + how, "TEST_SOCKETS=" + strconv.Itoa(len(fds))}})
	if err != nil {
		t.Fatal(err)
	}
	inR.Close()
	outW.Close()
	in, out := inW.File("in"), outR.File("out")
	t.Cleanup(func() {
		p.Signal(syscall.SIGKILL)
		<-p.Done()
		p.Release()
		in.Close()
		out.Close()
	})
	s := &server{p, in, bufio.NewReader(out)}
	if line, err := s.out.ReadString('\n'); err != nil || strings.TrimSpace(line) != "holding" {
		t.Fatalf("the server said %q: %v", line, err)
	}
	return s
}

func (s *server) begin(t testing.TB) {
	t.Helper()
	if _, err := s.in.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
}

// listen opens n sockets of network and returns their inodes.
func listen(t testing.TB, network string, n int) ([]*sys.FD, []uint64) {
	t.Helper()
	fds := make([]*sys.FD, n)
	inodes := make([]uint64, n)
	for i := range n {
		spec := sys.ListenSpec{Network: network, Host: "127.0.0.1"}
		if strings.HasPrefix(network, "unix") {
			spec = sys.ListenSpec{Network: network, Path: fmt.Sprintf("%s/%d", t.TempDir(), i)}
		}
		fd, err := sys.OpenListener(spec)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { fd.Close() })
		if inodes[i], err = sys.Inode(fd.Num()); err != nil {
			t.Fatal(err)
		}
		fds[i] = fd
	}
	return fds, inodes
}

// eventually asks until all of inodes are listened to by somebody of pids.
func eventually(t testing.TB, pids func() []int, inodes []uint64) map[uint64]int {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		found, err := probe.Listening(pids(), inodes)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == len(inodes) {
			return found
		}
		if time.Now().After(deadline) {
			t.Fatalf("found %d of %d sockets", len(found), len(inodes))
		}
	}
}
