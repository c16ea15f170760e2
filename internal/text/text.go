// Package text has what every message to a person needs: nothing that a
// terminal would obey, and a guess at what was meant.
package text

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable escapes what foreign text may hold beside printable characters: control characters, those that turn the
// direction of writing or end a line, and bytes that are no UTF-8. A message is one line, and no terminal obeys it.
func Printable(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case !unicode.IsPrint(r):
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		default:
			b.WriteRune(r)
		}
		s = s[size:]
	}
	return b.String()
}

// Ends returns the first and the last lines of s that are not empty, in one line.
func Ends(s string, first, last int) string {
	lines := filled(s)
	if left := len(lines) - first - last; left > 1 {
		lines = slices.Concat(lines[:first], []string{fmt.Sprintf("… %d lines …", left)}, lines[first+left:])
	}
	return strings.Join(lines, " | ")
}

// LastLines returns the last n lines of s that are not empty, in one line.
func LastLines(s string, n int) string {
	lines := filled(s)
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}

func filled(s string) (lines []string) {
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// Nearest returns the candidate that differs least from s, or "" if none is close.
func Nearest(s string, candidates []string) string {
	best, limit := "", max(2, 1+len(s)/4) // two: a pair of letters exchanged
	for _, c := range candidates {
		if d := distance(s, c); d <= limit && d < len(c) {
			best, limit = c, d-1
		}
	}
	return best
}

// distance is the number of insertions, deletions and replacements of bytes that make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
