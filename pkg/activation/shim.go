package activation

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/8265a91a/supervisor/internal/intercept"
	"github.com/8265a91a/supervisor/internal/sys"
)

// ShimCommand is the first argument by which a program that offers the shim knows that it is to call [Shim].
const ShimCommand = "exec-shim"

// pidPlaceholder is replaced, in the command line and the environment, by what only the child knows: its process id.
const pidPlaceholder = "${pid}"

// ShimArgs returns the command line that starts argv, laid out as l, through the exec shim of the program self.
// argv[0] must be a path: nothing is searched. The zero Layout passes nothing.
func ShimArgs(self string, l Layout, argv []string) []string {
	args := []string{self, ShimCommand}
	if l.Bind > 2 {
		args = append(args, "--bind", strconv.Itoa(l.Bind))
	}
	return append(append(args, "--"), argv...)
}

// Shim turns this process into a worker: it sets LISTEN_PID where LISTEN_FDS is set, removes LISTEN_PIDFDID, replaces
// ${pid} in the command line and in the environment by the process id, installs the interception of bind(2) with
// --bind N (see package intercept), and calls execve. args are the arguments after [ShimCommand]: flags, "--", and the
// worker's command line.
//
// It returns only on failure. By convention a program then exits with 127 if the error is [os.ErrNotExist], else 126.
// It changes the state of the whole process and is for a program that does nothing else afterwards.
func Shim(args []string) error {
	bind, argv, err := parseShimArgs(args)
	if err != nil {
		return fmt.Errorf("exec shim: %w", err)
	}
	pid := strconv.Itoa(os.Getpid())
	for i, arg := range argv {
		argv[i] = strings.ReplaceAll(arg, pidPlaceholder, pid)
	}
	env := shimEnv(os.Environ(), pid)
	if bind >= 0 {
		// The filter belongs to the thread that installs it, and execve keeps that of the thread that calls it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		sock := sys.NewFD(bind)
		err := intercept.Install(sock)
		sock.Close()
		if err != nil {
			return fmt.Errorf("exec shim: start %s: %w", argv[0], err)
		}
	}
	if os.Getenv("INVOCATION_ID") != "" {
		// systemd starts services with SIGPIPE ignored (IgnoreSIGPIPE=); Go's runtime has undone that for this process.
		signal.Ignore(syscall.SIGPIPE)
	}
	return fmt.Errorf("exec shim: start %s: %w", argv[0], syscall.Exec(argv[0], argv, env))
}

func parseShimArgs(args []string) (bind int, argv []string, err error) {
	bind = -1
	for len(args) > 0 {
		switch args[0] {
		case "--":
			if len(args) == 1 {
				return 0, nil, errors.New("no command after --")
			}
			return bind, args[1:], nil
		case "--bind":
			if len(args) == 1 {
				return 0, nil, errors.New("--bind needs a descriptor number")
			}
			if bind, err = strconv.Atoi(args[1]); err != nil || bind < 3 {
				return 0, nil, fmt.Errorf("--bind %q is not a descriptor number", args[1])
			}
			args = args[2:]
		default:
			return 0, nil, fmt.Errorf("unknown argument %q", args[0])
		}
	}
	return 0, nil, errors.New("no -- before the command")
}

func shimEnv(environ []string, pid string) []string {
	env := make([]string, 0, len(environ)+1)
	listens := false
	for _, variable := range environ {
		key, value, _ := strings.Cut(variable, "=")
		switch key {
		case "LISTEN_PID", "LISTEN_PIDFDID":
			continue
		case "LISTEN_FDS":
			listens = true
		}
		if strings.Contains(value, pidPlaceholder) {
			variable = key + "=" + strings.ReplaceAll(value, pidPlaceholder, pid)
		}
		env = append(env, variable)
	}
	if listens {
		env = append(env, "LISTEN_PID="+pid)
	}
	return env
}
