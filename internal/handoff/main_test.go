package handoff_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/8265a91a/supervisor/internal/leaktest"
	"github.com/8265a91a/supervisor/pkg/activation"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// workerProgram is test/worker, which takes its sockets without any of this project's packages.
var workerProgram string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == activation.ShimCommand {
		fmt.Fprintln(os.Stderr, activation.Shim(os.Args[2:]))
		os.Exit(126)
	}
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case tellCommand:
			fmt.Fprintln(os.Stderr, tell(os.Args[2], os.Args[3]))
			os.Exit(1)
		case takeCommand:
			fmt.Fprintln(os.Stderr, take(os.Args[2], os.Args[3]))
			os.Exit(1)
		}
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "handoff")
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
	return leaktest.Main(m)
}
