package supervisor

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/text"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// LastWords implements [handoff.Host]. A worker writes straight to the service's own stdout and stderr, so that its
// output does not depend on the supervisor's life; its last words are read back from where they went: the journal,
// or the regular file that stderr is.
func (d *Daemon) LastWords(g *handoff.Generation) string {
	if g.PID() == 0 {
		return ""
	}
	if StderrIsJournal() {
		return JournalWords(g.PID(), g.Since)
	}
	return fileWords(g.Since)
}

// StderrIsJournal tells whether stderr goes to the journal: it compares it with $JOURNAL_STREAM, "DEVICE:INODE" (systemd.exec(5)).
func StderrIsJournal() bool {
	var st syscall.Stat_t
	if err := syscall.Fstat(2, &st); err != nil {
		return false
	}
	return os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// wordLines is how many are quoted: Node and Ruby say what is wrong first, and then a trace.
const wordLines = 15

// wordsTimeout bounds the wait for journald, which stores what it reads a moment later.
const wordsTimeout = time.Second

// JournalWords asks journalctl for the last lines of the process pid since it was started. Whoever may not read the
// journal, as a supervisor that runs as a user of its own, gets none.
func JournalWords(pid int, since time.Time) string {
	ctx, cancel := context.WithTimeout(context.Background(), wordsTimeout)
	defer cancel()
	cmd := worker.Command{
		Argv:  []string{"/usr/bin/journalctl", "-q", "-o", "cat", "-n", strconv.Itoa(wordLines), "--no-pager", fmt.Sprintf("_PID=%d", pid), fmt.Sprintf("--since=@%d", since.Unix())},
		Env:   []string{"LC_ALL=C.UTF-8"},
		Files: []int{-1, -1, -1},
	}
	for wait := 10 * time.Millisecond; ; wait *= 2 {
		out, err := worker.Run(ctx, cmd)
		if err != nil {
			return "" // such as no permission to read the journal, which journalctl says on the same stream
		}
		if words := text.LastLines(out, wordLines); words != "" {
			return words
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ""
		}
	}
}

// ownPrefix begins the supervisor's own lines in a log file: they are nobody's last words.
const ownPrefix = "supervisor: "

// fileWords returns the end of the file that stderr is, if it was written to since.
func fileWords(since time.Time) string {
	target, err := os.Readlink("/proc/self/fd/2")
	if err != nil {
		return ""
	}
	st, err := os.Stat(target)
	if err != nil || !st.Mode().IsRegular() || st.ModTime().Before(since) {
		return ""
	}
	f, err := os.Open(target)
	if err != nil {
		return ""
	}
	defer f.Close()
	buf := make([]byte, 2048)
	n, _ := f.ReadAt(buf, max(0, st.Size()-int64(len(buf))))
	var words strings.Builder
	for line := range strings.Lines(string(buf[:n])) {
		if !strings.HasPrefix(line, ownPrefix) {
			words.WriteString(line)
		}
	}
	return text.LastLines(words.String(), wordLines)
}
