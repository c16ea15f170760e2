// Package unit asks which systemd unit this process belongs to, what systemd is
// doing with it, and who else is in it.
//
// The job that systemd has for a unit is the one source that tells a stop from
// a restart and from a crash, in a signal handler as well as in ExecStopPost=.
// Measured with systemd 252, 257 and 262, at the time of ExecStopPost=:
//
//	event                                    $SERVICE_RESULT   job
//	systemctl stop                           success           stop
//	a stop that ran into TimeoutStopSec=     timeout           stop
//	systemctl restart, then stop             success           stop
//	systemctl restart, try-restart           success           restart
//	main process killed, Restart=always      signal            none
//	main process ends by itself              success           none
//
// See systemctl(1), org.freedesktop.systemd1(5), cgroups(7).
package unit

import (
	"os"
	"strconv"
	"strings"
)

// Own returns the name of the service unit this process runs in, from its control group; empty outside of systemd.
func Own() string { return ownGroup().service() }

// Of returns the name of the service unit the process pid runs in; empty if there is none.
func Of(pid int) string { return groupOf(strconv.Itoa(pid)).service() }

// service is the name of the service unit that the control group belongs to.
func (g group) service() string {
	for part := range strings.SplitSeq(g.path, "/") {
		if strings.HasSuffix(part, ".service") && !strings.HasPrefix(part, "user@") {
			return part
		}
	}
	return ""
}

// group is a control group of the hierarchy that systemd manages. In a file "cgroup" of /proc its line ends in
// marker+path.
type group struct{ marker, path string }

// The hierarchies that systemd may manage: the unified one, and its own of version 1.
const (
	unified = "0::"
	legacy  = ":name=systemd:"
)

func ownGroup() group { return groupOf("self") }

// groupOf reads the control group of a process, by its directory in /proc.
func groupOf(process string) group {
	data, err := os.ReadFile("/proc/" + process + "/cgroup")
	if err != nil {
		return group{}
	}
	return parse(string(data))
}

// groups lists the control groups in the hierarchies that systemd may manage.
func groups(text string) (list []group) {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3) // the path may hold colons
		switch {
		case len(f) < 3 || !strings.HasPrefix(f[2], "/"):
		case f[0] == "0" && f[1] == "":
			list = append(list, group{unified, f[2]})
		case f[1] == "name=systemd":
			list = append(list, group{legacy, f[2]})
		}
	}
	return list
}

// parse finds the control group that names a unit. With both hierarchies mounted systemd manages one of them, and
// the other one says "/".
func parse(text string) group {
	var found group
	for _, g := range groups(text) {
		if g.marker == unified && (found.path == "" || found.path == "/") || g.marker == legacy && g.path != "/" {
			found = g
		}
	}
	return found
}
