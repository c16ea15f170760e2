package activation

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/8265a91a/supervisor/pkg/fdstore"
)

// Socket is a socket that a worker is to take.
type Socket struct {
	// Name is unique among the sockets of a plan. FDName is what LISTEN_FDNAMES calls it; Name when empty.
	Name, FDName string
	// Network is tcp, udp, unix, unixgram, unixpacket or vsock.
	Network string
	// Host is an IP address, or the CID for vsock; Port is for these networks.
	Host string
	Port int
	// Path is for the unix networks; "@" begins an abstract name.
	Path string
	// FD is the socket's descriptor in this process, borrowed.
	FD int
}

// Address returns the socket's path, or HOST:PORT with an IPv6 host in brackets.
func (s Socket) Address() string {
	if s.unix() {
		return s.Path
	}
	return net.JoinHostPort(s.Host, strconv.Itoa(s.Port))
}

func (s Socket) unix() bool   { return strings.HasPrefix(s.Network, "unix") }
func (s Socket) stream() bool { return s.Network != "udp" && s.Network != "unixgram" }

// Options says what else a plan needs.
type Options struct {
	// Generation is the worker's, for conventions that announce it.
	Generation int
	// Getsocks is the worker's end of a socket pair over which it asks for its sockets (HAProxy's sockpair@N).
	// Borrowed; nil when there is none.
	Getsocks *FD
	// Bind is the end of a socket pair over which the exec shim sends the notification descriptor of the convention
	// "bind". Borrowed; nil without that convention.
	Bind *FD
}

// Layout is how a worker is to be started.
type Layout struct {
	// Env are the variables (KEY=value) to add to its environment. LISTEN_PID is not among them: the shim sets it.
	Env []string
	// Files are borrowed: Files[i] becomes descriptor i of the child.
	Files []int
	// ChildFD maps the name of each socket that is passed as a descriptor to its number in the child.
	ChildFD map[string]int
	// Shim says that the worker must be started through the exec shim, see [ShimArgs].
	Shim bool
	// Getsocks and Bind are the numbers of [Options.Getsocks] and [Options.Bind] in the child, or -1.
	Getsocks, Bind int
}

// Conventions lists the names that [Plan] knows.
var Conventions = []string{
	"systemd", "getsocks", "nginx", "fpm", "starter", "unicorn", "nghttpx", "einhorn", "stdin", "argv", "bind",
}

// environments are the conventions that announce passed descriptors in the environment.
var environments = map[string]func(p passed) []string{
	"systemd": systemdEnv,
	"nginx":   nginxEnv,
	"fpm":     fpmEnv,
	"starter": starterEnv,
	"unicorn": unicornEnv,
	"nghttpx": nghttpxEnv,
	"einhorn": einhornEnv,
	"argv":    func(passed) []string { return nil },
}

// Plan lays out how a worker gets sockets, in their order, by all of conventions at once:
//
//   - systemd: descriptors from 3, LISTEN_FDS, LISTEN_FDNAMES, and LISTEN_PID from the shim (sd_listen_fds(3)); where all
//     names are too long for execve(2), sockets without an FDName are called "unknown"
//   - nginx: NGINX="3;4;"
//   - fpm: FPM_SOCKETS="ADDRESS=3,ADDRESS=4" (PHP-FPM; stream sockets only)
//   - starter: SERVER_STARTER_PORT="ADDRESS=3;ADDRESS=4" (Server::Starter, h2o, Starman, Starlet)
//   - unicorn: UNICORN_FD="3,4" (stream sockets only)
//   - nghttpx: NGHTTPX_ACCEPT_1="tcp,3", NGHTTPX_ACCEPT_2="unix,4,PATH" (stream sockets only)
//   - einhorn: EINHORN_FD_COUNT, EINHORN_FD_0, EINHORN_FD_FAMILY_0 and EINHORN_MASTER_PID, this process; there is no
//     command socket, so that a worker's "ack" is not answered
//   - stdin: descriptor 0 is the socket, of which there must be exactly one
//   - argv: descriptors from 3, announced by nothing: the command line names them
//   - getsocks: the worker asks for them over Options.Getsocks, or over a path
//   - bind: the worker's own bind(2) is answered with the socket; Options.Bind must be set
//
// With none but the last two, no socket is passed as a descriptor. stdio are the child's descriptors 0 to 2, borrowed.
func Plan(conventions []string, sockets []Socket, stdio [3]int, options Options) (Layout, error) {
	if err := checkPlan(conventions, sockets, options); err != nil {
		return Layout{}, fmt.Errorf("plan sockets: %w", err)
	}
	l := Layout{Files: slices.Clone(stdio[:]), ChildFD: map[string]int{}, Getsocks: -1, Bind: -1}
	if slices.Contains(conventions, "stdin") {
		l.Files[0] = sockets[0].FD
		l.ChildFD[sockets[0].Name] = 0
	}
	if slices.ContainsFunc(conventions, func(c string) bool { return environments[c] != nil }) {
		for _, s := range sockets {
			l.ChildFD[s.Name] = len(l.Files)
			l.Files = append(l.Files, s.FD)
		}
	}
	p := passed{sockets: sockets, childFD: l.ChildFD, generation: options.Generation}
	for _, c := range conventions {
		if env := environments[c]; env != nil {
			l.Env = append(l.Env, env(p)...)
		}
	}
	if slices.Contains(conventions, "getsocks") && options.Getsocks != nil {
		l.Getsocks = len(l.Files)
		l.Files = append(l.Files, options.Getsocks.Num())
	}
	if slices.Contains(conventions, "bind") {
		l.Bind = len(l.Files)
		l.Files = append(l.Files, options.Bind.Num())
	}
	l.Shim = l.Bind >= 0 || slices.Contains(conventions, "systemd")
	return l, nil
}

func checkPlan(conventions []string, sockets []Socket, options Options) error {
	for i, c := range conventions {
		if !slices.Contains(Conventions, c) {
			return fmt.Errorf("unknown convention %q (known: %s)", c, strings.Join(Conventions, ", "))
		}
		if slices.Contains(conventions[:i], c) {
			return fmt.Errorf("convention %q is listed twice", c)
		}
	}
	if slices.Contains(conventions, "stdin") && len(sockets) != 1 {
		return fmt.Errorf("convention \"stdin\" passes exactly one socket, not %d", len(sockets))
	}
	if slices.Contains(conventions, "bind") && options.Bind == nil {
		return errors.New("convention \"bind\" needs a socket pair for the notification descriptor")
	}
	names := map[string]bool{}
	for _, s := range sockets {
		if names[s.Name] {
			return fmt.Errorf("two sockets are called %q", s.Name)
		}
		names[s.Name] = true
		// A backslash, as in the escaped name of a unit, is kept here: only the FD store loses it.
		if err := fdstore.ValidName(strings.ReplaceAll(s.fdName(), `\`, "_")); err != nil {
			return fmt.Errorf("socket %q: %w", s.Name, err)
		}
	}
	return nil
}

func (s Socket) fdName() string {
	if s.FDName != "" {
		return s.FDName
	}
	return s.Name
}

// passed are sockets with their numbers in the child.
type passed struct {
	sockets    []Socket
	childFD    map[string]int
	generation int
}

// join formats the sockets that use accepts and joins them with sep.
func (p passed) join(sep string, use func(Socket) bool, format func(s Socket, fd int) string) string {
	var list []string
	for _, s := range p.sockets {
		if use(s) {
			list = append(list, format(s, p.childFD[s.Name]))
		}
	}
	return strings.Join(list, sep)
}

func all(Socket) bool { return true }

func number(_ Socket, fd int) string { return strconv.Itoa(fd) }

func addressed(s Socket, fd int) string { return s.Address() + "=" + strconv.Itoa(fd) }

// maxString is how long execve(2) lets a variable be (MAX_ARG_STRLEN), its end included.
const maxString = 128 << 10

func systemdEnv(p passed) []string {
	names := "LISTEN_FDNAMES=" + p.join(":", all, func(s Socket, _ int) string { return s.fdName() })
	if len(names) >= maxString { // thousands of sockets: those that nobody has named can do without
		names = "LISTEN_FDNAMES=" + p.join(":", all, func(s Socket, _ int) string { return cmp.Or(s.FDName, Unknown) })
	}
	return []string{"LISTEN_FDS=" + strconv.Itoa(len(p.sockets)), names}
}

func nginxEnv(p passed) []string {
	return []string{"NGINX=" + p.join("", all, func(_ Socket, fd int) string { return strconv.Itoa(fd) + ";" })}
}

func fpmEnv(p passed) []string {
	return []string{"FPM_SOCKETS=" + p.join(",", Socket.stream, addressed)}
}

func starterEnv(p passed) []string {
	return []string{
		"SERVER_STARTER_PORT=" + p.join(";", all, addressed),
		"SERVER_STARTER_GENERATION=" + strconv.Itoa(p.generation),
	}
}

func unicornEnv(p passed) []string {
	return []string{"UNICORN_FD=" + p.join(",", Socket.stream, number)}
}

func nghttpxEnv(p passed) []string {
	var env []string
	for _, s := range p.sockets {
		if !s.stream() {
			continue
		}
		value := "tcp," + strconv.Itoa(p.childFD[s.Name])
		if s.unix() {
			value = "unix," + strconv.Itoa(p.childFD[s.Name]) + "," + s.Path
		}
		env = append(env, fmt.Sprintf("NGHTTPX_ACCEPT_%d=%s", len(env)+1, value))
	}
	return env
}

func einhornEnv(p passed) []string {
	env := []string{
		"EINHORN_MASTER_PID=" + strconv.Itoa(os.Getpid()),
		"EINHORN_FD_COUNT=" + strconv.Itoa(len(p.sockets)),
	}
	for i, s := range p.sockets {
		family := "AF_INET"
		switch {
		case s.unix():
			family = "AF_UNIX"
		case s.Network == "vsock":
			family = "AF_VSOCK"
		case strings.Contains(s.Host, ":"):
			family = "AF_INET6"
		}
		env = append(env,
			fmt.Sprintf("EINHORN_FD_%d=%d", i, p.childFD[s.Name]),
			fmt.Sprintf("EINHORN_FD_FAMILY_%d=%s", i, family))
	}
	return env
}
