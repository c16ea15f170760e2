package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/8265a91a/supervisor/internal/text"
)

// Values are what placeholders stand for in one generation.
type Values struct {
	// Sockets are the held sockets by name.
	Sockets map[string]SocketValue
	// Getsocks is the path of the supervisor's own _getsocks server, GetsocksFD the descriptor of the
	// connected pair in the worker.
	Getsocks   string
	GetsocksFD int
	Generation int
	// Slot is 0 or 1 in turn.
	Slot int
	// Dir is the runtime directory of the generation, Runtime the one of the service.
	Dir     string
	Runtime string
	// Name is the service's name.
	Name string
}

// SocketValue is what the placeholders of one socket stand for.
type SocketValue struct {
	// FD is the descriptor's number in the worker.
	FD int
	// Addr is the whole address, Host and Port its parts; a Unix socket has Addr and Path only.
	Addr string
	Host string
	Port string
	Path string
}

// placeholders are all names, with whether a socket's name follows.
var placeholders = map[string]bool{
	"fd": true, "addr": true, "host": true, "port": true, "path": true,
	"getsocks": false, "getsocks_fd": false, "pid": false, "generation": false, "slot": false,
	"dir": false, "runtime": false, "name": false,
}

// segment is literal text, or a placeholder where kind is not empty.
type segment struct {
	text   string
	kind   string
	socket string
}

// Expand replaces the placeholders in s. Only "${" begins one, every other "$" is literal; ${pid}
// stays, as only the exec shim knows it. The result of an expansion is not expanded again.
func Expand(s string, v *Values) (string, error) {
	segments, err := split(s)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, seg := range segments {
		text := seg.text
		switch {
		case seg.socket != "":
			text, err = v.socket(seg)
		case seg.kind != "":
			text = v.value(seg)
		}
		if err != nil {
			return "", err
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

// Placeholders lists the placeholders in s as they stand there, such as "fd:http" or "pid",
// or says what is wrong with one.
func Placeholders(s string) ([]string, error) {
	segments, err := split(s)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, seg := range segments {
		switch {
		case seg.socket != "":
			list = append(list, seg.kind+":"+seg.socket)
		case seg.kind != "":
			list = append(list, seg.kind)
		}
	}
	return list, nil
}

// UsesPID says whether any of args holds ${pid}, which only the exec shim can fill in.
func UsesPID(args ...string) bool {
	return slices.ContainsFunc(args, func(s string) bool { return strings.Contains(s, "${pid}") })
}

func split(s string) ([]segment, error) {
	var segments []segment
	for {
		literal, rest, found := strings.Cut(s, "${")
		if literal != "" {
			segments = append(segments, segment{text: literal})
		}
		if !found {
			return segments, nil
		}
		body, rest, closed := strings.Cut(rest, "}")
		if !closed {
			return nil, bad(`"${" always begins a placeholder`, "%q is not closed with }", "${"+body)
		}
		seg, err := placeholder(body)
		if err != nil {
			return nil, err
		}
		segments = append(segments, seg)
		s = rest
	}
}

func placeholder(body string) (segment, error) {
	seg := segment{text: "${" + body + "}"}
	kind, socket, named := strings.Cut(body, ":")
	wantsName, known := placeholders[kind]
	switch {
	case !known:
		names := make([]string, 0, len(placeholders))
		for n := range placeholders {
			names = append(names, n)
		}
		hint := "known are " + strings.Join(sorted(names), ", ")
		if near := text.Nearest(kind, sorted(names)); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		return seg, bad(hint, "unknown placeholder %s", seg.text)
	case wantsName && socket == "":
		return seg, bad(fmt.Sprintf("write ${%s:NAME}", kind), "placeholder %s names no socket", seg.text)
	case !wantsName && named:
		return seg, bad(fmt.Sprintf("write ${%s}", kind), "placeholder %s takes no name", seg.text)
	case wantsName:
		if err := checkDescriptorName(socket); err != nil {
			return seg, bad("", "placeholder %s: %v", seg.text, err)
		}
	}
	seg.kind, seg.socket = kind, socket
	return seg, nil
}

func (v *Values) value(seg segment) string {
	switch seg.kind {
	case "getsocks":
		return v.Getsocks
	case "getsocks_fd":
		return strconv.Itoa(v.GetsocksFD)
	case "generation":
		return strconv.Itoa(v.Generation)
	case "slot":
		return strconv.Itoa(v.Slot)
	case "dir":
		return v.Dir
	case "runtime":
		return v.Runtime
	case "name":
		return v.Name
	}
	return seg.text
}

func (v *Values) socket(seg segment) (string, error) {
	s, ok := v.Sockets[seg.socket]
	if !ok {
		names := make([]string, 0, len(v.Sockets))
		for n := range v.Sockets {
			names = append(names, n)
		}
		hint := "there are no sockets"
		if len(names) > 0 {
			hint = "the sockets are " + quoted(sorted(names))
		}
		return "", bad(hint, "unknown socket %q in %s", seg.socket, seg.text)
	}
	switch seg.kind {
	case "fd":
		return strconv.Itoa(s.FD), nil
	case "addr":
		return s.Addr, nil
	case "host":
		return s.Host, nil
	}
	// An empty argument in the place of a port or a path is a mistake that nobody would find in the worker's words.
	part := s.Port
	if seg.kind == "path" {
		part = s.Path
	}
	if part == "" {
		return "", bad("", "socket %q (%s) has no %s for %s", seg.socket, s.Addr, seg.kind, seg.text)
	}
	return part, nil
}

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}
