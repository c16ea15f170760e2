package config

import (
	"syscall"
	"time"
)

// Config is one valid configuration file, with every default filled in.
type Config struct {
	// Name is the service's name: the file name without ".toml".
	Name string
	// Path is the file it was read from.
	Path string
	// Sum is the hex SHA-256 of the file's bytes, so that a status can tell which text is in force.
	Sum string
	// Text is the file's content, from which Parse makes the same Config again.
	Text string
	// Warnings are what is no mistake, but does not do what it seems to.
	Warnings Errors

	Worker  Worker
	Ready   Ready
	Drain   Drain
	Handoff Handoff
	Sockets []Socket
}

// Worker says how a generation is started and checked.
type Worker struct {
	Command          []string
	Check            []string
	CheckWithSockets bool
	// CheckTimeout bounds the check command; default 30s.
	CheckTimeout time.Duration
	Environment  map[string]string
	Directory    string
	// Conventions (key "sockets") are the ways in which the worker takes its sockets; default ["systemd"],
	// or ["getsocks"] where Command uses ${getsocks} or ${getsocks_fd}.
	Conventions []string
	// Watchdog is the WATCHDOG_USEC given to the worker; 0 means none.
	Watchdog time.Duration
	// PIDFile is where a generation writes its pid file (may hold ${dir}); PIDLink is the fixed path that is made
	// a symbolic link to the serving generation's PIDFile. Both or neither are set.
	PIDFile string
	PIDLink string
}

// The conventions of [Worker.Conventions].
const (
	ConventionSystemd  = "systemd"
	ConventionGetsocks = "getsocks"
	ConventionNginx    = "nginx"
	ConventionFPM      = "fpm"
	ConventionStarter  = "starter"
	ConventionUnicorn  = "unicorn"
	ConventionNghttpx  = "nghttpx"
	ConventionEinhorn  = "einhorn"
	ConventionStdin    = "stdin"
	ConventionArgv     = "argv"
	ConventionBind     = "bind"
)

// Ready says when a generation counts as ready: all conditions in When hold.
type Ready struct {
	When    []string
	Stable  time.Duration
	Timeout time.Duration
	Socket  string
	Command []string
	File    string
	Delay   time.Duration
}

// The conditions of [Ready.When].
const (
	ReadyListening = "listening"
	ReadyNotify    = "notify"
	ReadyHAProxy   = "haproxy"
	ReadyCommand   = "command"
	ReadyFile      = "file"
	ReadyDelay     = "delay"
)

// Drain says how an old generation is brought to its end.
type Drain struct {
	Divert string
	Settle time.Duration
	// Idle is the longest wait for the generation to hold no connection before it is told to stop; 0 means no wait.
	Idle time.Duration
	// Signal is sent to the main process; it is 0 where Command is set, which is run instead.
	Signal  syscall.Signal
	Command []string
	// Timeout is how long the generation may take after the signal before Escalate begins.
	Timeout  time.Duration
	Escalate []EscalateStep
	Success  []ExitStatus
}

// The values of [Drain.Divert].
const (
	DivertAuto  = "auto"
	DivertSteer = "steer"
	DivertFence = "fence"
	DivertNone  = "none"
)

// EscalateStep is either a signal to the whole process tree of a generation (Signal != 0) or a wait.
type EscalateStep struct {
	Signal syscall.Signal
	Wait   time.Duration
}

// ExitStatus is one way a clean drain may end: an exit code, or death by Signal where Signal != 0.
type ExitStatus struct {
	Code   int
	Signal syscall.Signal
}

// Handoff says how one generation takes the place of another.
type Handoff struct {
	Order string
	Fetch string
	// Getsocks is the path of the worker's own _getsocks socket.
	Getsocks    string
	MaxDraining int
}

// The values of [Handoff.Order] and [Handoff.Fetch].
const (
	OrderStartFirst  = "start-first"
	OrderSignalFirst = "signal-first"

	FetchGetsocks = "getsocks"
	FetchPidfd    = "pidfd"
	FetchNone     = "none"
)

// Socket is one [[socket]] table: a socket the supervisor binds itself, or, where Listen is empty,
// options by name for one that a .socket unit passes.
type Socket struct {
	Name   string
	Listen Address
	// Nonblock is nil where the mode of the socket is left as it is.
	Nonblock    *bool
	Mode        *uint32
	User        string
	Group       string
	Backlog     int
	V6Only      *bool
	FreeBind    bool
	DeferAccept time.Duration
	// Line is where the table begins in the file.
	Line int
}

// Address is a parsed listen address. The zero value is no address.
type Address struct {
	// Network is tcp, udp, unix, unixpacket, unixgram or vsock.
	Network string
	// Host and Port are set for tcp and udp (Host is an IP literal, "" for the IPv6 wildcard), Port alone with CID for vsock.
	Host string
	Port uint32
	CID  uint32
	// Path is set for the unix networks; a leading "@" is the abstract namespace.
	Path string
}
