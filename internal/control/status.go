package control

import "time"

// Status is what `supervisor status --json` prints. Times are RFC 3339, durations whole microseconds (keys in _us).
type Status struct {
	V       int    `json:"v"`
	Name    string `json:"name"`
	PID     int    `json:"pid"`
	Version string `json:"version"`
	// Since is when the service was started; supervisors that adopted its workers since then do not count.
	Since time.Time `json:"since,omitzero"`
	// Started is when this supervisor process was started or last replaced its binary.
	Started time.Time `json:"started"`
	// State is the service's in one word: starting, serving, reloading, restarting, stopping.
	State  string     `json:"state"`
	Config ConfigFile `json:"config"`
	// Generations are the living ones and the last few that are gone, newest first.
	Generations []Generation `json:"generations"`
	// Sockets is the number of held sockets, Stored the number of used entries in systemd's FD store, and StoreMax
	// how many it takes; 0 where there is no FD store.
	Sockets  int `json:"sockets"`
	Stored   int `json:"stored"`
	StoreMax int `json:"store_max"`
	// Handoffs are the last ones, newest first.
	Handoffs []Trace `json:"handoffs"`
	// Queued says that one more reload waits for the one under way.
	Queued bool `json:"queued,omitempty"`
	// Restart is set while a crashed worker waits to be started again.
	Restart  *Restart `json:"restart,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// ConfigFile says which configuration is in force.
type ConfigFile struct {
	Path string `json:"path"`
	// Sum is the hex SHA-256 of the text that the serving generation was started with.
	Sum string `json:"sum"`
	// Changed says that the file now holds another text.
	Changed bool `json:"changed,omitempty"`
	// Error says why the file cannot be read now; the worker runs on with what it was started with.
	Error string `json:"error,omitempty"`
}

// Generation is one start of the worker.
type Generation struct {
	N int `json:"n"`
	// State is starting, serving, draining or gone.
	State string    `json:"state"`
	PID   int       `json:"pid,omitempty"`
	Since time.Time `json:"since"`
	// Slot is 0 or 1: which socket of a steered pair it accepts on.
	Slot int `json:"slot"`
	// Adopted says that an earlier supervisor process started it.
	Adopted bool `json:"adopted,omitempty"`
	// Divert is how new connections are kept from it while it drains: steer, fence or none.
	Divert string `json:"divert,omitempty"`
	// Phase is the step of its drain, and Deadline is when escalation begins, or its next stage comes.
	Phase    string    `json:"phase,omitempty"`
	Deadline time.Time `json:"deadline,omitzero"`
	// Status is the worker's last STATUS= line.
	Status string `json:"status,omitempty"`
	// Exit says in words how it ended, and Ended when.
	Exit  string    `json:"exit,omitempty"`
	Ended time.Time `json:"ended,omitzero"`
	Note  string    `json:"note,omitempty"`
}

// Trace is the record of one handoff.
type Trace struct {
	ID int `json:"id"`
	// Kind is start, reload, restart or replace.
	Kind    string    `json:"kind"`
	Order   string    `json:"order"`
	Started time.Time `json:"started"`
	// Took is the time until the result was known; the drain goes on after it.
	Took  Duration `json:"took_us"`
	OK    bool     `json:"ok"`
	Error string   `json:"error,omitempty"`
	// From and To are generations; From is 0 where there was none, To where none was started.
	From  int    `json:"from,omitempty"`
	To    int    `json:"to,omitempty"`
	Steps []Step `json:"steps"`
}

// Restart is the wait before a crashed worker is started again.
type Restart struct {
	At      time.Time `json:"at"`
	Attempt int       `json:"attempt"`
	// Reason is how the worker ended, or why the last start failed.
	Reason string `json:"reason"`
}

// FDs is what `supervisor fds --json` prints.
type FDs struct {
	V       int    `json:"v"`
	Name    string `json:"name"`
	Sockets []Held `json:"sockets"`
}

// Held is one held descriptor.
type Held struct {
	Name string `json:"name"`
	// Network is tcp, udp, unix, unixgram, unixpacket or vsock; another word for what is no socket (blob).
	Network string `json:"network"`
	Address string `json:"address"`
	// Listening is false for a stream socket that refuses connections, and for datagram sockets.
	Listening bool `json:"listening"`
	// BacklogUsed connections wait to be accepted, of at most BacklogMax; both 0 where the kernel does not say.
	BacklogUsed int `json:"backlog_used"`
	BacklogMax  int `json:"backlog_max"`
	// Cookie is the socket's identity (SO_COOKIE); Inode is the number that ss and /proc show.
	Cookie uint64 `json:"cookie"`
	Inode  uint64 `json:"inode"`
	// Origin is unit, bound, fetched or pushed.
	Origin string `json:"origin"`
	// Stored says that systemd's FD store has it too.
	Stored   bool `json:"stored"`
	Nonblock bool `json:"nonblock"`
	// Flags name what is set: reuseport, v6only, freebind, paired (the second socket of a steered pair is held too), unclaimed.
	Flags []string `json:"flags,omitempty"`
	// Device is SO_BINDTODEVICE; Namespace and Interface are the names that HAProxy keeps beside its listener.
	Device    string   `json:"device,omitempty"`
	Namespace string   `json:"namespace,omitempty"`
	Interface string   `json:"interface,omitempty"`
	Holders   []Holder `json:"holders"`
}

// Holder is a process that has the socket open.
type Holder struct {
	PID int `json:"pid"`
	// Generation is 0 for a process that belongs to none (the supervisor itself is not listed).
	Generation int    `json:"generation,omitempty"`
	Comm       string `json:"comm,omitempty"`
}
