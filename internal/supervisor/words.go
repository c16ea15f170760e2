package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/text"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// LastWords implements [handoff.Host]. A worker writes straight to the service's own stdout and stderr, so that its
// output does not depend on the supervisor's life; its last words are read back from where they went: the journal,
// or the regular file that stderr is.
func (d *Daemon) LastWords(g *handoff.Generation) string {
	pids := g.Seen()
	if len(pids) == 0 {
		return ""
	}
	if StderrIsJournal() {
		return JournalWords(pids, g.Since)
	}
	return fileWords(g.WordsFrom)
}

// StderrIsJournal tells whether stderr goes to the journal: it compares it with $JOURNAL_STREAM, "DEVICE:INODE" (systemd.exec(5)).
func StderrIsJournal() bool {
	var st syscall.Stat_t
	if err := syscall.Fstat(2, &st); err != nil {
		return false
	}
	return os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// How many lines are quoted. Node, Java and Unicorn say what is wrong first, and then a trace; Puma after its banner, and
// then a trace; Python at the end of one.
const firstLines, lastLines = 12, 8

// keepWords is how much is read of what a worker has written.
const keepWords = 64 << 10

// wordsTimeout bounds the wait for journald, which stores what it reads a moment later.
const wordsTimeout = 3 * time.Second

// JournalWords asks journalctl for the first and last lines of the processes pids since the first of them was started.
// Whoever may not read the journal, as a supervisor that runs as a user of its own, gets none.
func JournalWords(pids []int, since time.Time) string {
	ctx, cancel := context.WithTimeout(context.Background(), wordsTimeout)
	defer cancel()
	matches := []string{fmt.Sprintf("--since=@%d", since.Unix())}
	for _, pid := range pids {
		matches = append(matches, fmt.Sprintf("_PID=%d", pid))
	}
	// journald reads everything that was written to it before it answers that; only root may ask for it.
	_, err := journalctl(ctx, "--sync")
	stored := err == nil
	for wait := 10 * time.Millisecond; ; wait *= 2 {
		out, err := journalctl(ctx, matches...)
		if err != nil {
			return "" // such as no permission to read the journal, which journalctl says on the same stream
		}
		if words := quote(out); words != "" || stored {
			return words
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ""
		}
	}
}

func journalctl(ctx context.Context, arguments ...string) (string, error) {
	return worker.Run(ctx, worker.Command{
		Argv:  append([]string{"/usr/bin/journalctl", "-q", "-o", "cat", "--no-pager"}, arguments...),
		Env:   []string{"LC_ALL=C.UTF-8"},
		Files: []int{-1, -1, -1},
		Keep:  keepWords,
	})
}

func quote(words string) string { return text.Ends(words, firstLines, lastLines) }

// Hint is advice for the failure of a worker with these last words, or nothing. conventions are those by which it was to
// take its sockets.
func Hint(words string, conventions []string) string {
	lower := strings.ToLower(words)
	inUse := func(said string) bool { return strings.Contains(lower, said) }
	switch {
	case !slices.ContainsFunc([]string{"address already in use", "address in use", "connection in use", "eaddrinuse"}, inUse):
		return ""
	case slices.Contains(conventions, config.ConventionGetsocks):
		return ""
	case slices.Contains(conventions, config.ConventionBind):
		return "the worker binds an address that no socket of the service has: compare its configuration with [[socket]] and with supervisor fds"
	}
	return `the supervisor holds that address: the worker must take the socket by a convention that it knows (supervisor.toml(5)); for one that knows none write sockets = ["bind"] into [worker]`
}

// hintFor is Hint for a failed handoff, where there are sockets of which it could be about. It runs on the loop.
func (d *Daemon) hintFor(op *operation) string {
	var f *handoff.Failure
	cfg := op.handoff.Config
	if !errors.As(op.err, &f) || cfg == nil || len(cfg.Sockets)+d.held.Len() == 0 {
		return ""
	}
	return Hint(f.Words, cfg.Worker.Conventions)
}

// StartError is why the first worker of a service could not be started.
type StartError struct{ Message, Hint string }

func (e *StartError) Error() string { return e.Message }

// ownPrefix begins the supervisor's own lines in a log file: they are nobody's last words.
const ownPrefix = "supervisor: "

// stderrFile is the regular file that stderr is, if it is one.
func stderrFile() (path string, st os.FileInfo) {
	path, err := os.Readlink("/proc/self/fd/2")
	if err != nil {
		return "", nil
	}
	if st, err = os.Stat(path); err != nil || !st.Mode().IsRegular() {
		return "", nil
	}
	return path, st
}

// wordsFrom is where in that file a generation that starts now will write: before it are the words of others.
func wordsFrom() int64 {
	if _, st := stderrFile(); st != nil {
		return st.Size()
	}
	return 0
}

// fileWords quotes the file that stderr is, but nothing before from.
func fileWords(from int64) string {
	target, st := stderrFile()
	if st == nil {
		return ""
	}
	f, err := os.Open(target)
	if err != nil {
		return ""
	}
	defer f.Close()
	if from > st.Size() { // it was truncated
		from = 0
	}
	buf := make([]byte, keepWords)
	start := max(from, st.Size()-int64(len(buf)))
	n, _ := f.ReadAt(buf, start)
	end := string(buf[:n])
	if start > from {
		_, end, _ = strings.Cut(end, "\n") // the rest of a line, nobody knows whose
	}
	var words strings.Builder
	for line := range strings.Lines(end) {
		if !strings.HasPrefix(line, ownPrefix) {
			words.WriteString(line)
		}
	}
	return quote(words.String())
}
