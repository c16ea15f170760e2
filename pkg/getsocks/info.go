package getsocks

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxInfo is far more than the 4 KiB that show info prints.
const maxInfo = 256 << 10

// PID asks the HAProxy stats socket at path which process answers there (show info, "Pid:"). HAProxy binds all its
// sockets before it answers, so a process that answers with its own pid is ready.
func PID(ctx context.Context, path string) (int, error) {
	conn, err := dial(ctx, path)
	if err != nil {
		return 0, fmt.Errorf("ask for the process: %w", err)
	}
	defer conn.Close()
	defer bind(ctx, conn)()
	if _, err := io.WriteString(conn, "show info\n"); err != nil && !hungUp(err) {
		return 0, fmt.Errorf("ask %s for the process: %w", path, explain(ctx, err))
	}
	answer, err := io.ReadAll(io.LimitReader(conn, maxInfo))
	if err != nil {
		return 0, fmt.Errorf("ask %s for the process: %w", path, explain(ctx, err))
	}
	pid, err := findPID(string(answer))
	if err != nil {
		return 0, fmt.Errorf("ask %s for the process: %w", path, err)
	}
	return pid, nil
}

func findPID(answer string) (int, error) {
	for line := range strings.Lines(answer) {
		value, ok := strings.CutPrefix(line, "Pid:")
		if !ok {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(value))
		if err != nil || pid <= 0 {
			return 0, fmt.Errorf("impossible answer %.40q", line)
		}
		return pid, nil
	}
	return 0, fmt.Errorf(`no "Pid:" in the answer to show info: %.60q`, answer)
}
