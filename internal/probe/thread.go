package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/8265a91a/supervisor/internal/sys"
)

// call is the way in which a system call names the descriptors that it waits on.
type call int

const (
	byDescriptor call = iota + 1 // the first argument
	byPollSet                    // struct pollfd *, number
	bySelectSet                  // number, fd_set *
	// restarted is restart_syscall(2), with the arguments of the call that a stop or a freeze of the process interrupted.
	restarted
)

// calls has the numbers of the system calls in which a thread waits for peers; nil where they are not known.
var calls = tables[runtime.GOARCH]

var tables = map[string]map[int]call{
	"amd64": {
		0: byDescriptor /* read */, 43: byDescriptor /* accept */, 288: byDescriptor, /* accept4 */
		45: byDescriptor /* recvfrom */, 47: byDescriptor /* recvmsg */, 299: byDescriptor, /* recvmmsg */
		7: byPollSet /* poll */, 271: byPollSet, /* ppoll */
		23: bySelectSet /* select */, 270: bySelectSet, /* pselect6 */
		219: restarted,
	},
	"arm64": generic, "loong64": generic, "riscv64": generic,
}

// generic is include/uapi/asm-generic/unistd.h.
var generic = map[int]call{
	63: byDescriptor /* read */, 202: byDescriptor /* accept */, 242: byDescriptor, /* accept4 */
	207: byDescriptor /* recvfrom */, 212: byDescriptor /* recvmsg */, 243: byDescriptor, /* recvmmsg */
	73: byPollSet /* ppoll */, 72: bySelectSet, /* pselect6 */
	128: restarted,
}

// maxSet bounds the sets that are read out of another process's memory.
const maxSet = 1 << 16

// sleepers calls found for each of sockets (inodes by descriptor) on which a thread of pid sleeps.
func sleepers(pid int, sockets map[int]uint64, found func(uint64)) error {
	if calls == nil {
		return fmt.Errorf("what threads wait on is not known on %s", runtime.GOARCH)
	}
	dir := fmt.Sprintf("/proc/%d/task", pid)
	d, err := os.Open(dir)
	if err != nil {
		return unlessGone(err)
	}
	threads, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return unlessGone(err)
	}
	var errs []error
	buf := make([]byte, 0, 512)
	for _, thread := range threads {
		text, err := sys.ReadProc(dir+"/"+thread+"/syscall", buf)
		if err != nil {
			errs = append(errs, unlessGone(err))
			continue
		}
		how, args := parseSyscall(string(text))
		if how == restarted {
			how = whatRestarted(dir + "/" + thread)
		}
		fds, err := waitedOn(pid, how, args)
		if err != nil {
			errs = append(errs, unlessGone(err))
		}
		for _, fd := range fds {
			if inode, ok := sockets[fd]; ok {
				found(inode)
				delete(sockets, fd)
			}
		}
		if len(sockets) == 0 {
			return nil
		}
	}
	return errors.Join(errs...)
}

// whatRestarted tells a restarted poll(2) from a sleep, whose arguments mean something else, by the function of the kernel
// in which the thread waits; it returns 0 where that does not tell.
func whatRestarted(thread string) call {
	function, err := sys.ReadProc(thread+"/wchan", nil)
	if err == nil && bytes.Contains(function, []byte("poll")) {
		return byPollSet
	}
	return 0
}

// parseSyscall reads /proc/PID/task/TID/syscall: the number, six arguments, stack pointer and program counter of a
// sleeping thread; "running" or a number of -1 mean that it is in none.
func parseSyscall(text string) (how call, args [2]uint64) {
	fields := strings.Fields(text)
	if len(fields) != 9 {
		return 0, args
	}
	number, err := strconv.Atoi(fields[0])
	if err != nil {
		return 0, args
	}
	for i := range args {
		if args[i], err = strconv.ParseUint(fields[1+i], 0, 64); err != nil {
			return 0, args
		}
	}
	return calls[number], args
}

// waitedOn returns the descriptors of pid that a call with args waits to be readable.
func waitedOn(pid int, how call, args [2]uint64) ([]int, error) {
	switch how {
	case byDescriptor:
		return []int{int(int32(args[0]))}, nil
	case byPollSet:
		if args[1] > maxSet {
			return nil, nil
		}
		set, err := memory(pid, args[0], int(args[1])*8)
		return pollSet(set), err
	case bySelectSet:
		if args[0] > maxSet || args[1] == 0 {
			return nil, nil
		}
		// An fd_set is an array of 8-byte words.
		set, err := memory(pid, args[1], int(args[0]+63)/64*8)
		return selectSet(set, int(args[0])), err
	}
	return nil, nil
}

func memory(pid int, address uint64, size int) ([]byte, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := make([]byte, size)
	if _, err := f.ReadAt(buf, int64(address)); err != nil {
		return nil, nil // the thread has gone on and its stack has changed
	}
	return buf, nil
}

// pollSet reads an array of struct pollfd { int fd; short events, revents; }.
func pollSet(set []byte) []int {
	var fds []int
	for ; len(set) >= 8; set = set[8:] {
		fd := int32(binary.NativeEndian.Uint32(set))
		if fd >= 0 && binary.NativeEndian.Uint16(set[4:])&readable != 0 {
			fds = append(fds, int(fd))
		}
	}
	return fds
}

func selectSet(set []byte, n int) []int {
	var fds []int
	for fd := range n {
		at := fd / 64 * 8
		if at+8 > len(set) {
			break
		}
		if binary.NativeEndian.Uint64(set[at:])>>(fd%64)&1 != 0 {
			fds = append(fds, fd)
		}
	}
	return fds
}
