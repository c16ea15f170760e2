package unit

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// askTimeout bounds the question to systemd, whose answer takes milliseconds.
const askTimeout = 2 * time.Second

// JobType returns the type of the job that systemd has for the unit called name: "stop", "restart", "start", …, or ""
// if it has none. Any user may ask. While the system goes down there may be no bus, which is an error.
func JobType(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := dbus.NewWithContext(ctx)
	if err != nil {
		return "", fmt.Errorf("reach systemd: %w", err)
	}
	defer conn.Close()
	jobs, err := conn.ListJobsContext(ctx)
	if err != nil {
		return "", fmt.Errorf("list jobs: %w", err)
	}
	for _, j := range jobs {
		if j.Unit == name {
			return j.JobType, nil
		}
	}
	return "", nil
}
