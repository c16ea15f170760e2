package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"

	"github.com/8265a91a/supervisor/internal/supervisor"
	"github.com/8265a91a/supervisor/internal/text"
)

// logHandler writes one line per record: "<6>message key=value …". The number is the journal's priority
// (sd-daemon(3)), which systemd takes off again; without a journal the line begins with the program's name and level.
type logHandler struct {
	mu      *sync.Mutex
	w       io.Writer
	journal bool
	attrs   []slog.Attr
}

func newLogHandler(w io.Writer) *logHandler {
	return &logHandler{mu: new(sync.Mutex), w: w, journal: supervisor.StderrIsJournal()}
}

// Enabled implements [slog.Handler]: there is no debug level.
func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

// Handle implements [slog.Handler].
func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(h.prefix(r.Level))
	b.WriteString(text.Printable(r.Message))
	for _, a := range h.attrs {
		writeAttr(&b, a)
	}
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, a)
		return true
	})
	b.WriteByte('\n')
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.w, b.String())
	return err
}

func (h *logHandler) prefix(level slog.Level) string {
	priority, word := 6, ""
	switch {
	case level >= slog.LevelError:
		priority, word = 3, "error: "
	case level >= slog.LevelWarn:
		priority, word = 4, "warning: "
	}
	if h.journal {
		return "<" + strconv.Itoa(priority) + ">"
	}
	return "supervisor: " + word
}

// writeAttr leaves empty values out: most steps of a handoff have no note and no error.
func writeAttr(b *strings.Builder, a slog.Attr) {
	value := a.Value.String()
	if value == "" {
		return
	}
	if strings.ContainsAny(value, " \"\n\t=") {
		value = strconv.Quote(value)
	}
	fmt.Fprintf(b, " %s=%s", a.Key, value)
}

// WithAttrs implements [slog.Handler].
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append(c.attrs[:len(c.attrs):len(c.attrs)], attrs...)
	return &c
}

// WithGroup implements [slog.Handler]. Groups are not used here; their keys stay as they are.
func (h *logHandler) WithGroup(string) slog.Handler { return h }
