package supervisor_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/getsocks"
)

// serveAsked is a worker that asks for its only socket, at a descriptor or a path, and serves for ever.
func serveAsked(from, generation string) error {
	list, err := askFor(from)
	if err != nil {
		return err
	}
	if len(list) != 1 {
		return fmt.Errorf("got %d sockets", len(list))
	}
	l, err := net.FileListener(list[0].FD.File("listener"))
	if err != nil {
		return err
	}
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "gen="+generation) }))
}

func askFor(from string) ([]getsocks.Socket, error) {
	n, err := strconv.Atoi(from)
	if err != nil {
		return getsocks.Fetch(context.Background(), from)
	}
	ours, theirs, err := sys.Socketpair(syscall.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	if err := sys.SendRights(sys.NewFD(n), []byte("xx"), []int{theirs.Num()}); err != nil {
		return nil, err
	}
	conn, err := sys.UnixConn(ours)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return getsocks.FetchConn(context.Background(), conn)
}

// A worker that asks for its sockets gets the half of a pair that new connections will be steered to.
func TestGetsocksOfPairs(t *testing.T) {
	t.Parallel()
	for _, from := range []string{"${getsocks_fd}", "${getsocks}"} {
		t.Run(from, func(t *testing.T) {
			t.Parallel()
			s := newService(t, "")
			s.configure(fmt.Sprintf("[worker]\nsockets = [\"getsocks\"]\ncommand = [%q, %q, %q, \"${generation}\"]\n"+
				"[ready]\nwhen = [\"listening\"]\ntimeout = \"10s\"\n[drain]\ndivert = \"steer\"\nsettle = \"20ms\"\n", s.binary, askCommand, from))
			s.start()
			for n := 1; n <= 4; n++ {
				if answer, err := ask(s.addr); err != nil || answer != fmt.Sprint("gen=", n) {
					t.Errorf("generation %d: %q, %v", n, answer, err)
				}
				s.reload()
			}
			s.settled()
			s.stop()
		})
	}
}

// A supervisor without room for more descriptors says what it did not give.
func TestGetsocksWithoutRoom(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.many(100)
	s.start()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.daemon.PID()))
	if err != nil {
		t.Fatal(err)
	}
	free := 40 // below the limit: those that are open may leave gaps
	var before syscall.Rlimit
	limit := syscall.Rlimit{Max: 1 << 20}
	open := map[string]bool{}
	for _, e := range entries {
		open[e.Name()] = true
	}
	for ; free > 0; limit.Cur++ {
		if !open[strconv.Itoa(int(limit.Cur))] {
			free--
		}
	}
	prlimit := func(set, was *syscall.Rlimit) {
		t.Helper()
		const nofile = 7
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(s.daemon.PID()), nofile, uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(was)), 0, 0); errno != 0 {
			t.Fatal(errno)
		}
	}
	prlimit(nil, &before)
	limit.Max = before.Max
	prlimit(&limit, nil)
	list, err := getsocks.Fetch(s.ctx(), filepath.Join(s.runtime(), "getsocks.sock"))
	getsocks.CloseAll(list)
	prlimit(&before, nil)
	if err != nil || len(list) == 0 || len(list) >= 100 {
		t.Errorf("given: %d sockets, %v", len(list), err)
	}
	if len(s.warnings("of 100 sockets are not given", "too many open files")) != 1 {
		t.Errorf("warnings: %q", s.warnings())
	}
	s.stop()
}
