package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// attack does to the notify sockets of the supervisor and of systemd whatever a worker can. It says when it is done.
func attack() {
	ours := os.Getenv("NOTIFY_SOCKET")
	s, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		fmt.Println("worker: attack:", err)
		return
	}
	defer syscall.Close(s)
	// A full queue must not hold up the attack for ever.
	_ = syscall.SetsockoptTimeval(s, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &syscall.Timeval{Usec: 20000})
	_ = syscall.SetsockoptInt(s, syscall.SOL_SOCKET, syscall.SO_SNDBUF, 1<<20)
	sent, refused := 0, 0
	// Each message has files of its own, or the supervisor would refuse it at the first, which it knows already.
	send := func(path, text string, fds int) {
		files := make([]int, 0, fds)
		defer func() {
			for _, fd := range files {
				syscall.Close(fd)
			}
		}()
		for range fds {
			fd, err := memfd("hostile")
			if err != nil {
				fmt.Println("worker: attack:", err)
				return
			}
			files = append(files, fd)
		}
		var rights []byte
		if fds > 0 {
			rights = syscall.UnixRights(files...)
		}
		if err := syscall.Sendmsg(s, []byte(text), rights, &syscall.SockaddrUnix{Name: path}, 0); err != nil {
			refused++
			return
		}
		sent++
	}
	for _, path := range []string{ours, "/run/systemd/notify"} {
		for _, text := range lies() {
			send(path, text, 0)
			send(path, text, 1)
		}
		// 10,000 descriptors; fewer for systemd, which forks a process to close each. Half of the messages replace what
		// the one before has stored, the others find no room.
		for i := range map[bool]int{true: 40, false: 1}[path == ours] {
			send(path, fmt.Sprintf("FDSTORE=1\nFDNAME=hostile%d\nFDPOLL=0", i/20), 250)
		}
		send(path, "BARRIER=1", 5)
	}
	for begin := time.Now(); time.Since(begin) < time.Second; {
		for i := range 100 {
			send(ours, fmt.Sprintf("STATUS=flood %d %s", i, strings.Repeat("x", 1000)), i%2)
		}
	}
	fmt.Printf("worker: attack is over: %d messages sent, %d refused\n", sent, refused)
}

// lies are messages that must not be believed, or cannot be understood.
func lies() []string {
	parent := os.Getppid()
	list := []string{
		"", "\n", "=", "\x00", "\xff\xfe\x00=\n\n\n", strings.Repeat("x", 4097), strings.Repeat("READY=1\n", 30000), "STATUS=" + strings.Repeat("y", 200000),
		"READY=", "READY=2", "READY=1\nREADY=1", "MAINPID=1", "MAINPID=0", "MAINPID=-1", "MAINPID=99999999999999999999", fmt.Sprintf("MAINPID=%d", parent), fmt.Sprintf("MAINPID=%d", os.Getpid()),
		"STOPPING=1", "RELOADING=1", "RELOADING=1\nMONOTONIC_USEC=1", "ERRNO=99999", "BUSERROR=x", "WATCHDOG=1", "WATCHDOG_USEC=1", "WATCHDOG_USEC=18446744073709551616",
		"EXTEND_TIMEOUT_USEC=-1", "EXTEND_TIMEOUT_USEC=18446744073709551615", "BARRIER=1", "FDSTORE=1", "FDSTOREREMOVE=1", "FDSTOREREMOVE=1\nFDNAME=",
		"FDSTORE=1\nFDNAME=" + strings.Repeat("n", 300), "FDSTORE=1\nFDNAME=a:b", "FDSTORE=1\nFDNAME=a\\b", "NOTIFYACCESS=all",
	}
	for _, name := range []string{"supervisor.state", "supervisor.state.next", "supervisor.socket.http", "supervisor.alternate.http", "supervisor.alternate-first.http", "supervisor.worker.1", "supervisor.notify.1", "supervisor.bundle.1"} {
		list = append(list, "FDSTORE=1\nFDNAME="+name, "FDSTOREREMOVE=1\nFDNAME="+name)
	}
	return list
}
