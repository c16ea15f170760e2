package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// announce says READY=1 and whatever -push and -flood ask for.
func announce(o *options, sockets int) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" || !o.notify {
		return nil
	}
	for _, name := range o.push {
		if err := push(path, name); err != nil {
			return fmt.Errorf("push %s: %w", name, err)
		}
	}
	for i := range o.flood {
		if err := notify(path, fmt.Sprintf("STATUS=flood %d %s", i, strings.Repeat("x", 1000))); err != nil {
			return fmt.Errorf("flood: %w", err)
		}
	}
	if o.neverReady {
		return nil
	}
	if usec, err := strconv.Atoi(os.Getenv("WATCHDOG_USEC")); err == nil && o.watchdog {
		go func() {
			for range time.Tick(time.Duration(usec) * time.Microsecond / 6) {
				_ = notify(path, "WATCHDOG=1") // without a supervisor its queue may be full
			}
		}()
	}
	return notify(path, fmt.Sprintf("READY=1\nSTATUS=serving %d sockets", sockets))
}

func notify(path, text string) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(text))
	return err
}

func memfd(name string) (int, error) {
	cname, err := syscall.BytePtrFromString(name)
	if err != nil {
		return -1, err
	}
	const sysMemfdCreate = 319
	fd, _, errno := syscall.Syscall(sysMemfdCreate, uintptr(unsafe.Pointer(cname)), 1, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// push stores a memfd whose content is its name.
func push(path, name string) error {
	memfd, err := memfd(name)
	if err != nil {
		return err
	}
	defer syscall.Close(memfd)
	if _, err := syscall.Write(memfd, []byte(name)); err != nil {
		return err
	}
	s, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(s)
	return syscall.Sendmsg(s, []byte("FDSTORE=1\nFDNAME="+name), syscall.UnixRights(memfd), &syscall.SockaddrUnix{Name: path}, 0)
}
