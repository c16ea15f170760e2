package config

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/8265a91a/supervisor/internal/text"
)

var signals = map[string]syscall.Signal{
	"SIGHUP": syscall.SIGHUP, "SIGINT": syscall.SIGINT, "SIGQUIT": syscall.SIGQUIT, "SIGILL": syscall.SIGILL,
	"SIGTRAP": syscall.SIGTRAP, "SIGABRT": syscall.SIGABRT, "SIGBUS": syscall.SIGBUS, "SIGFPE": syscall.SIGFPE,
	"SIGKILL": syscall.SIGKILL, "SIGUSR1": syscall.SIGUSR1, "SIGSEGV": syscall.SIGSEGV, "SIGUSR2": syscall.SIGUSR2,
	"SIGPIPE": syscall.SIGPIPE, "SIGALRM": syscall.SIGALRM, "SIGTERM": syscall.SIGTERM, "SIGSTKFLT": syscall.SIGSTKFLT,
	"SIGCHLD": syscall.SIGCHLD, "SIGCONT": syscall.SIGCONT, "SIGTSTP": syscall.SIGTSTP, "SIGTTIN": syscall.SIGTTIN,
	"SIGTTOU": syscall.SIGTTOU, "SIGURG": syscall.SIGURG, "SIGXCPU": syscall.SIGXCPU, "SIGXFSZ": syscall.SIGXFSZ,
	"SIGVTALRM": syscall.SIGVTALRM, "SIGPROF": syscall.SIGPROF, "SIGWINCH": syscall.SIGWINCH, "SIGIO": syscall.SIGIO,
	"SIGPWR": syscall.SIGPWR, "SIGSYS": syscall.SIGSYS,
}

// parseSignal reads a signal's name, "SIGUSR1" or "USR1". SIGSTOP is refused: it ends no worker.
func parseSignal(s string) (syscall.Signal, error) {
	name := "SIG" + strings.TrimPrefix(s, "SIG")
	if sig, ok := signals[name]; ok {
		return sig, nil
	}
	if isNumber(s) {
		return 0, bad(`write the name, such as "SIGTERM"`, "signal %q is a number", s)
	}
	if name == "SIGSTOP" {
		return 0, bad("", "%q stops a worker for ever and never ends it", s)
	}
	names := make([]string, 0, len(signals))
	for n := range signals {
		names = append(names, n)
	}
	hint := `such as "SIGTERM" or "USR1"`
	if near := text.Nearest("SIG"+strings.TrimPrefix(strings.ToUpper(s), "SIG"), sorted(names)); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	return 0, bad(hint, "unknown signal %q", s)
}

func asSignal(v any) (syscall.Signal, error) {
	if n, ok := v.(int64); ok {
		return 0, bad(`write the name, such as "SIGTERM"`, "signal %d is a number", n)
	}
	s, err := asText(v)
	if err != nil {
		return 0, err
	}
	return parseSignal(s)
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
