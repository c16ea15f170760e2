// Command worker is the server that tests supervise: it takes its sockets from LISTEN_FDS or binds its own, says who
// it is in every answer, and misbehaves on request.
//
// It is no example to follow: it knows the protocols by itself, so that a fault in this project's packages cannot
// hide in it too. A file of further arguments (-args) lets a test change the next generation without touching the
// supervisor's configuration.
//
// Answers: / "pid=N gen=G", /slow?ms=N the same after N ms, /sockets one line per socket with its index, name,
// address, mode and options, /env the environment, /child?ms=N how a child ended that was to live for N ms, and to a datagram "pid=N gen=G " and the datagram.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

type options struct {
	args       string
	check      bool
	generation string
	binds      list
	fds        list
	closed     list
	idle       list
	reusePort  bool
	accept     string
	drain      string
	notify     bool
	startDelay time.Duration
	startWhile string
	lock       string
	exit       int
	hang       bool
	neverReady bool
	readyDie   time.Duration
	ignore     bool
	ignoreTerm bool
	child      bool
	childSays  string
	sleep      time.Duration
	heir       string
	binder     string
	push       list
	flood      int
	backlog    int
	shutdown   bool
	ask        int
	stderr     string
	stopping   time.Duration
	drainWhile string
	stopExit   int
	hostile    bool
	watchdog   bool
	pidFile    string
	getsocks   string
	lie        string
	lieAfter   int
	anyPID     bool
}

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func (o *options) flags() *flag.FlagSet {
	f := flag.NewFlagSet("worker", flag.ContinueOnError)
	f.StringVar(&o.args, "args", "", "file with more arguments, one a line; \"broken\" in it fails -check and the start")
	f.BoolVar(&o.check, "check", false, "only check the arguments")
	f.StringVar(&o.generation, "generation", "", "said in answers")
	f.Var(&o.binds, "bind", "bind tcp:HOST:PORT, udp:HOST:PORT or unix:PATH by oneself (repeatable)")
	f.Var(&o.fds, "fd", "take this descriptor too, which nothing else announces (repeatable)")
	f.Var(&o.closed, "close", "close what is passed with this address (repeatable)")
	f.Var(&o.idle, "idle", "do nothing with what is passed with this address (repeatable)")
	f.BoolVar(&o.reusePort, "reuseport", false, "bind with SO_REUSEPORT")
	f.StringVar(&o.accept, "accept", "net", "net (Go's poller, makes sockets non-blocking), block (blocking accept), epoll (one loop for many sockets, which it makes non-blocking), nonblock (the same, but they must be so), never (waits in epoll for connections that it does not accept)")
	f.StringVar(&o.drain, "drain", "lossless", "on SIGTERM: lossless, or abrupt (drops what was accepted and not read)")
	f.BoolVar(&o.notify, "notify", true, "say READY=1 where NOTIFY_SOCKET is set")
	f.DurationVar(&o.startDelay, "start-delay", 0, "wait before taking the sockets")
	f.StringVar(&o.startWhile, "start-while", "", "wait as long as this file exists before taking the sockets")
	f.StringVar(&o.lock, "lock", "", "take an exclusive lock on this file or exit 1")
	f.IntVar(&o.exit, "exit", -1, "exit with this status at start")
	f.BoolVar(&o.hang, "hang", false, "do nothing for ever at start")
	f.BoolVar(&o.neverReady, "never-ready", false, "serve, but never say READY=1")
	f.DurationVar(&o.readyDie, "ready-then-die", 0, "exit 1 so long after READY=1")
	f.BoolVar(&o.ignore, "ignore-sockets", false, "say READY=1 but accept nothing")
	f.BoolVar(&o.ignoreTerm, "ignore-term", false, "ignore SIGTERM, SIGINT, SIGUSR1 and SIGHUP")
	f.BoolVar(&o.child, "child", false, "start a child that outlives the worker")
	f.StringVar(&o.childSays, "child-stderr", "", "have that child say this on standard error")
	f.DurationVar(&o.sleep, "sleep", 0, "be a child that lives so long")
	f.StringVar(&o.heir, "heir", "", "start a child that outlives the worker; each time this file appears it binds what the file says (as -bind, or netlink:), takes the file away, and writes what came of it to FILE.said")
	f.StringVar(&o.binder, "binder", "", "be that child")
	f.Var(&o.push, "push", "NAME: put a memfd with the name as content into the FD store (repeatable)")
	f.IntVar(&o.flood, "flood", 0, "send so many STATUS= datagrams to the notify socket")
	f.IntVar(&o.backlog, "backlog", 0, "call listen() with this backlog on every socket taken")
	f.BoolVar(&o.shutdown, "shutdown", false, "shutdown() the sockets when draining, which breaks them for every holder")
	f.IntVar(&o.ask, "ask", 0, "have so many loops ask others from UDP sockets that they close soon, as resolvers do")
	f.StringVar(&o.stderr, "stderr", "", "say this on standard error at start")
	f.DurationVar(&o.stopping, "drain-delay", 0, "stay so long after SIGTERM before exiting")
	f.StringVar(&o.drainWhile, "drain-while", "", "stay after SIGTERM as long as this file exists")
	f.IntVar(&o.stopExit, "stop-exit", 0, "exit with this status after SIGTERM")
	f.BoolVar(&o.hostile, "hostile", false, "attack the notify sockets of the supervisor and of systemd after READY=1")
	f.BoolVar(&o.watchdog, "watchdog", false, "say WATCHDOG=1 six times in WATCHDOG_USEC")
	f.StringVar(&o.getsocks, "getsocks", "", "answer _getsocks at this path with the sockets, as HAProxy does")
	f.StringVar(&o.lie, "lie", "", "answer it wrongly: few or many (other than announced), none (hang up), zero, half (of the number), pipe, file or connection (in the place of a socket), short (leaves one out), foreign:SPEC (only what -bind=SPEC would be), silent (for ever)")
	f.IntVar(&o.lieAfter, "lie-after", 0, "answer so many requests honestly first")
	f.BoolVar(&o.anyPID, "any-pid", false, "take LISTEN_FDS whatever LISTEN_PID says")
	f.StringVar(&o.pidFile, "pid-file", "", "write the pid to this file before READY=1")
	return f
}

// parse reads the command line and then the -args file, whose flags override it.
func parse(arguments []string) (*options, error) {
	o := &options{}
	f := o.flags()
	if err := f.Parse(arguments); err != nil {
		return nil, err
	}
	if o.args == "" {
		return o, nil
	}
	text, err := os.ReadFile(o.args)
	if err != nil {
		return nil, err
	}
	var more []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "broken" {
			return nil, fmt.Errorf("%s: this file is broken", o.args)
		} else if line != "" {
			more = append(more, line)
		}
	}
	return o, f.Parse(more)
}

func main() {
	o, err := parse(os.Args[1:])
	if err == nil && o.check {
		return
	}
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker: error:", err)
		os.Exit(1)
	}
}

func run(o *options) error {
	if o.stderr != "" {
		fmt.Fprintln(os.Stderr, o.stderr)
	}
	if o.sleep > 0 {
		time.Sleep(o.sleep)
		return nil
	}
	if o.binder != "" {
		return bindOnRequest(o.binder)
	}
	if o.exit >= 0 {
		os.Exit(o.exit)
	}
	stop := make(chan os.Signal, 4)
	if o.ignoreTerm {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGHUP)
	} else {
		signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1)
	}
	if o.hang {
		time.Sleep(time.Hour)
	}
	time.Sleep(o.startDelay)
	waitWhile(o.startWhile)
	if err := takeLock(o.lock); err != nil {
		return err
	}
	sockets, err := takeSockets(o)
	if err != nil {
		return err
	}
	if o.child {
		if err := startChild("-sleep=1h", "-stderr", o.childSays); err != nil {
			return err
		}
	}
	if o.heir != "" {
		if err := startChild("-binder=" + o.heir); err != nil {
			return err
		}
	}
	s := &server{options: o, sockets: sockets}
	if err := s.startGetsocks(); err != nil {
		return err
	}
	if !o.ignore {
		if err := s.start(); err != nil {
			return err
		}
	}
	if o.pidFile != "" {
		if err := os.WriteFile(o.pidFile, fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
			return err
		}
	}
	if err := announce(o, len(sockets)); err != nil {
		return err
	}
	fmt.Printf("worker: pid=%d gen=%s sockets=%d\n", os.Getpid(), o.generation, len(sockets))
	for range o.ask {
		go ask()
	}
	if o.hostile {
		go attack()
	}
	if o.readyDie > 0 {
		time.AfterFunc(o.readyDie, func() { os.Exit(1) })
	}
	<-stop
	s.drain()
	if o.stopExit != 0 {
		os.Exit(o.stopExit)
	}
	return nil
}

func ask() {
	for {
		if c, err := net.ListenPacket("udp", "127.0.0.1:0"); err == nil {
			time.Sleep(2 * time.Millisecond)
			c.Close()
		}
		time.Sleep(time.Millisecond)
	}
}

// waitWhile returns when the file, if one is named, does not exist.
func waitWhile(file string) {
	for file != "" {
		if _, err := os.Lstat(file); err != nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func startChild(arguments ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	_, err = syscall.ForkExec(self, append([]string{self}, arguments...), &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
	return err
}

// takeLock holds the lock for the life of the process: the descriptor is left open on purpose.
func takeLock(path string) error {
	if path == "" {
		return nil
	}
	fd, err := syscall.Open(path, syscall.O_CREAT|syscall.O_RDWR|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return fmt.Errorf("open lock %s: %w", path, err)
	}
	if err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s is held by another process: %w", path, err)
	}
	return nil
}
