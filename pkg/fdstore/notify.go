package fdstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

// maxMessage is the size above which systemd drops a message whole (NOTIFY_BUFFER_MAX, PIPE_BUF).
const maxMessage = 4096

// Notify sends lines such as "READY=1" and "STATUS=text" as one message. A newline inside a line becomes a space, so
// that foreign text in a STATUS= cannot add fields. More than 4096 bytes in all are an error: systemd would drop the
// message without a word.
func (s *Store) Notify(lines ...string) error {
	return s.notify(time.Duration(s.timeout.Load()), lines)
}

// TryNotify is [Store.Notify] that never waits: [ErrBusy] while the receiver's queue is full.
func (s *Store) TryNotify(lines ...string) error { return s.notify(-1, lines) }

func (s *Store) notify(within time.Duration, lines []string) error {
	var message strings.Builder
	for _, line := range lines {
		if key, _, ok := strings.Cut(line, "="); !ok || key == "" {
			return fmt.Errorf("notify systemd: %q is not of the form KEY=value", line)
		}
		message.WriteString(strings.ReplaceAll(line, "\n", " "))
		message.WriteByte('\n')
	}
	if message.Len() > maxMessage {
		return fmt.Errorf("notify systemd: message is %d bytes long, more than the %d allowed", message.Len(), maxMessage)
	}
	if err := s.sendWithin(within, message.String()); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// Barrier returns when systemd has worked through all messages sent before (BARRIER=1, systemd 246), or ctx is done.
// An older systemd closes the descriptor of a message it does not know, which has the same effect.
func (s *Store) Barrier(ctx context.Context) error {
	r, w, err := sys.Pipe()
	if err != nil {
		return fmt.Errorf("wait for systemd: %w", err)
	}
	defer r.Close()
	defer w.Close()
	// Only the reading end is made non-blocking: it has a file description of its own that nobody else holds.
	if err := sys.SetNonblock(r.Num(), true); err != nil {
		return fmt.Errorf("wait for systemd: %w", err)
	}
	if err := s.send("BARRIER=1", w.Num()); err != nil {
		return fmt.Errorf("wait for systemd: %w", err)
	}
	w.Close()
	f := r.File("barrier")
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err = f.Read(make([]byte, 1))
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("wait for systemd: %w", context.Cause(ctx))
	case err == nil:
		return errors.New("wait for systemd: somebody wrote into the barrier's pipe")
	}
	return fmt.Errorf("wait for systemd: %w", err)
}
