package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// getsocks answers at -getsocks as HAProxy does on its admin socket: honestly for the first -lie-after requests, then as
// -lie says. What it hands out stays open as long as the process.
type getsocks struct {
	options  *options
	sockets  []socket // the admin socket is the last
	mu       sync.Mutex
	requests int
}

func (s *server) startGetsocks() error {
	path := s.options.getsocks
	if path == "" {
		return nil
	}
	temporary := fmt.Sprintf("%s.%d.tmp", path, os.Getpid())
	admin, err := bind("unix:"+temporary, s.options)
	if err != nil {
		return fmt.Errorf("bind %s: %w", temporary, err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	g := &getsocks{options: s.options, sockets: append(append([]socket{}, s.sockets...), admin)}
	go func() {
		for {
			if fd, _, err := syscall.Accept4(admin.fd, syscall.SOCK_CLOEXEC); err == nil {
				go g.answer(fd)
			}
		}
	}()
	return nil
}

// lie is the kind of the next answer, empty for an honest one.
func (g *getsocks) lie() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests++
	if g.requests <= g.options.lieAfter {
		return ""
	}
	return g.options.lie
}

func (g *getsocks) answer(conn int) {
	defer syscall.Close(conn)
	buf := make([]byte, 1024)
	if n, err := syscall.Read(conn, buf); err != nil || string(buf[:max(n, 0)]) != "_getsocks\n" {
		return
	}
	var fds []int
	for _, k := range g.sockets {
		fds = append(fds, k.fd)
	}
	lie := g.lie()
	kind, argument, _ := strings.Cut(lie, ":")
	announced := len(fds)
	switch kind {
	case "":
	case "silent":
		time.Sleep(time.Hour)
	case "none":
		return
	case "half":
		_, _ = syscall.Write(conn, []byte{byte(announced), 0})
		return
	case "zero":
		announced, fds = 0, nil
	case "few":
		announced++
	case "many":
		announced--
	case "short":
		fds = fds[1:]
		announced--
	case "foreign":
		k, err := bind(argument, g.options)
		if err != nil {
			fmt.Fprintln(os.Stderr, "worker: error:", err)
			return
		}
		announced, fds = 2, []int{k.fd, fds[len(fds)-1]}
	case "pipe", "file", "connection":
		var err error
		if fds[0], err = strange(kind); err != nil {
			fmt.Fprintln(os.Stderr, "worker: error:", err)
			return
		}
	}
	_, err := syscall.Write(conn, binary.NativeEndian.AppendUint32(nil, uint32(announced)))
	if err == nil && len(fds) > 0 {
		// Two empty names and four bytes of options for each.
		err = syscall.Sendmsg(conn, make([]byte, 6*len(fds)), syscall.UnixRights(fds...), nil, syscall.MSG_NOSIGNAL)
	}
	if err == nil {
		_, _ = syscall.Read(conn, buf) // the acknowledgement
	}
}

// strange opens something that is no listening socket.
func strange(kind string) (int, error) {
	switch pair := [2]int{}; kind {
	case "pipe":
		err := syscall.Pipe2(pair[:], syscall.O_CLOEXEC)
		return pair[0], err
	case "connection":
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		return pair[0], err
	default:
		return syscall.Open("/etc/passwd", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	}
}
