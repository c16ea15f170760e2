package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/8265a91a/supervisor/internal/text"
)

// Error is one mistake in a configuration file.
type Error struct {
	File string
	// Line and Col count from 1, Col in bytes. Line is 0 where the mistake has no place in the text.
	Line int
	Col  int
	// Key is the dotted key, such as "ready.timeout"; empty for a mistake of the syntax.
	Key string
	// Message says what is wrong, Hint what to write instead; Hint may be empty.
	Message string
	Hint    string
}

// Error gives "FILE:LINE: KEY: message (hint)", without the parts that are empty.
func (e Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.Key != "" {
		b.WriteString(": " + e.Key)
	}
	b.WriteString(": " + e.Message)
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return text.Printable(b.String())
}

// Errors are all mistakes of one file, ordered by line.
type Errors []Error

// Error gives one line per mistake.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

func (e Errors) sort() {
	slices.SortFunc(e, func(a, b Error) int {
		return cmp.Or(
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Col, b.Col),
			cmp.Compare(a.Key, b.Key),
			cmp.Compare(a.Message, b.Message),
		)
	})
}

// problem is what is wrong with one value, before it is known where the value stands.
type problem struct {
	message string
	hint    string
}

func (p *problem) Error() string {
	if p.hint == "" {
		return p.message
	}
	return p.message + " (" + p.hint + ")"
}

func bad(hint, format string, args ...any) error {
	return &problem{message: fmt.Sprintf(format, args...), hint: hint}
}
