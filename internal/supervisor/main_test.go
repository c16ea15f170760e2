package supervisor_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/8265a91a/supervisor/internal/fdstoretest"
	"github.com/8265a91a/supervisor/internal/leaktest"
	"github.com/8265a91a/supervisor/internal/supervisor"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/activation"
	"github.com/8265a91a/supervisor/pkg/fdstore"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// daemonCommand makes the test binary be the daemon: daemon NAME CONFIG RUNTIMEDIR.
const daemonCommand = "daemon"

// sendCommand makes it send messages, with form feeds between, each with all descriptors from 3 on: send SOCKET MESSAGE.
const sendCommand = "send"

// askCommand makes it be a worker that gets its socket by _getsocks, from a descriptor or a path: ask FROM GENERATION.
const askCommand = "ask"

// workerProgram is test/worker, which takes its sockets without any of this project's packages.
var workerProgram string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case activation.ShimCommand:
			fmt.Fprintln(os.Stderr, activation.Shim(os.Args[2:]))
			os.Exit(126)
		case "preflight":
			exitWith(supervisor.Preflight(os.Args[2], os.Args[3], os.Args[4]))
		case sendCommand:
			var fds []int
			for n := 3; ; n++ {
				if cloexec, err := sys.CloseOnExec(n); err != nil || cloexec {
					break // the runtime's own
				}
				fds = append(fds, n)
			}
			exitWith(send(os.Args[2], os.Args[3], fds))
		case askCommand:
			exitWith(serveAsked(os.Args[2], os.Args[3]))
		case daemonCommand:
			opts := supervisor.Options{
				Name: os.Args[2], ConfigPath: os.Args[3], RuntimeDir: os.Args[4], Version: "test",
				Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
			}
			socket := os.Getenv("NOTIFY_SOCKET")
			opts.TellStore(func() (count, limit int, ok bool) { return fdstoretest.Use(socket) })
			exitWith(supervisor.Run(context.Background(), opts))
		}
	}
	os.Exit(testMain(m))
}

// send returns when the message was read: who it was from can be told only as long as the sender lives.
func send(socket, message string, fds []int) error {
	for m := range strings.SplitSeq(message, "\f") {
		if err := sys.SendTo(socket, []byte(m), fds); err != nil {
			return err
		}
	}
	store, err := fdstore.Open(socket)
	if err != nil {
		return err
	}
	return store.Barrier(context.Background())
}

func exitWith(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "daemon: error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "supervisor")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	workerProgram = filepath.Join(dir, "worker")
	build := worker.Command{
		Argv: []string{"/bin/sh", "-c", "exec go build -o " + workerProgram + " ../../test/worker"},
		Env:  append(os.Environ(), "CGO_ENABLED=0"),
	}
	if out, err := worker.Run(context.Background(), build); err != nil {
		fmt.Fprintln(os.Stderr, "build test/worker:", err, out)
		return 1
	}
	// As systemd is: the worker of a supervisor that was killed comes here.
	if err := sys.Subreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return leaktest.Main(m)
}
