package config

import (
	"sort"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// place is where a key and its value begin in the text, as byte offsets.
// A table has no value of its own; its value offset is 0.
type place struct {
	key   int
	value int
}

// deep is the path of everything below maxParts: no key of ours is there, and without a bound a
// hostile file could make paths of a megabyte by the hundred thousand.
const (
	deep     = "\xff"
	maxParts = 5
)

// child gives the path of a key in a table.
func child(path, key string) string {
	if path == deep || strings.Count(path, "\x00") >= maxParts {
		return deep
	}
	return path + "\x00" + key
}

// element gives the path of an element of an array, be it of tables or values.
func element(path string, i int) string { return child(path, "#"+strconv.Itoa(i)) }

// scanner finds where the keys, tables and array elements of a TOML text begin.
//
// The TOML library knows no position of a decoded key, and of keys in an array
// of tables not even internally. The scanner only runs on text that the library
// has accepted, so it checks nothing; on anything else it still ends.
type scanner struct {
	text   string
	off    int
	places map[string]place
	// tables counts the elements of each array of tables.
	tables map[string]int
}

func scan(text string) map[string]place {
	s := &scanner{text: text, places: map[string]place{}, tables: map[string]int{}}
	table := ""
	for {
		s.skipBlank()
		before := s.off
		switch s.peek() {
		case 0:
			return s.places
		case '[':
			table = s.header()
		default:
			s.pair(table)
		}
		if s.off == before {
			return s.places
		}
	}
}

// peek returns the next byte, or 0 at the end.
func (s *scanner) peek() byte {
	if s.off < len(s.text) {
		return s.text[s.off]
	}
	return 0
}

func (s *scanner) skipSpace() {
	for s.peek() == ' ' || s.peek() == '\t' {
		s.off++
	}
}

// skipBlank skips white space, line ends and comments.
func (s *scanner) skipBlank() {
	for {
		switch s.peek() {
		case ' ', '\t', '\r', '\n':
			s.off++
		case '#':
			s.skipTo("\n")
		default:
			return
		}
	}
}

func (s *scanner) skipTo(stops string) {
	if i := strings.IndexAny(s.text[s.off:], stops); i >= 0 {
		s.off += i
	} else {
		s.off = len(s.text)
	}
}

// header reads [a.b] or [[a.b]] and returns the path that the following pairs belong to.
func (s *scanner) header() string {
	s.off++
	array := s.peek() == '['
	if array {
		s.off++
	}
	path := ""
	keys := s.dotted()
	for i, k := range keys {
		path = child(path, k.name)
		last := i == len(keys)-1
		s.mark(path, k.off, last && !array)
		if last && array {
			s.tables[path]++
		}
		if n := s.tables[path]; n > 0 {
			path = element(path, n-1)
			s.mark(path, k.off, false)
		}
	}
	for s.peek() == ']' {
		s.off++
	}
	return path
}

// mark notes where path begins; force replaces an earlier mention that only implied it.
func (s *scanner) mark(path string, off int, force bool) {
	if _, ok := s.places[path]; path != deep && (!ok || force) {
		s.places[path] = place{key: off}
	}
}

// pair reads key = value.
func (s *scanner) pair(table string) {
	path := table
	keys := s.dotted()
	for i, k := range keys {
		path = child(path, k.name)
		s.mark(path, k.off, i == len(keys)-1)
	}
	if s.peek() != '=' {
		return
	}
	s.off++
	s.skipSpace()
	s.value(path)
}

// value skips one value and notes where it and, in an array or inline table, its parts begin.
func (s *scanner) value(path string) {
	if p, ok := s.places[path]; ok {
		p.value = s.off
		s.places[path] = p
	}
	switch s.peek() {
	case '"', '\'':
		s.skipString()
	case '[':
		s.list(']', func(i int) {
			at := element(path, i)
			s.mark(at, s.off, true)
			s.value(at)
		})
	case '{':
		s.list('}', func(int) { s.pair(path) })
	default:
		s.skipTo(",]}#\n")
	}
}

// list calls part for each part of a bracketed list.
func (s *scanner) list(end byte, part func(i int)) {
	s.off++
	for i := 0; ; i++ {
		s.skipBlank()
		if s.peek() == end {
			s.off++
			return
		}
		before := s.off
		part(i)
		s.skipBlank()
		if s.peek() == ',' {
			s.off++
		}
		if s.off == before {
			return
		}
	}
}

// skipString skips a string of any of the four kinds.
func (s *scanner) skipString() {
	quote := s.text[s.off : s.off+1]
	if long := strings.Repeat(quote, 3); strings.HasPrefix(s.text[s.off:], long) {
		s.off += 3
		s.skipPast(long, quote == `"`)
		// Up to two more quotes belong to the text of the string: """a"""" is a".
		for i := 0; i < 2 && s.peek() == quote[0]; i++ {
			s.off++
		}
		return
	}
	s.off++
	s.skipPast(quote, quote == `"`)
}

func (s *scanner) skipPast(end string, escapes bool) {
	for s.off < len(s.text) {
		switch {
		case strings.HasPrefix(s.text[s.off:], end):
			s.off += len(end)
			return
		case escapes && s.text[s.off] == '\\':
			s.off = min(s.off+2, len(s.text))
		default:
			s.off++
		}
	}
}

type keyPart struct {
	name string
	off  int
}

// dotted reads a key: bare, quoted or several of them joined by dots.
func (s *scanner) dotted() []keyPart {
	var parts []keyPart
	for {
		s.skipSpace()
		start := s.off
		if c := s.peek(); c == '"' || c == '\'' {
			s.skipString()
			parts = append(parts, keyPart{unquote(s.text[start:s.off]), start})
		} else {
			s.skipTo(".= \t\r\n],}#")
			parts = append(parts, keyPart{s.text[start:s.off], start})
		}
		s.skipSpace()
		if s.peek() != '.' {
			return parts
		}
		s.off++
	}
}

func unquote(raw string) string {
	var v struct{ K string }
	if _, err := toml.Decode("K = "+raw, &v); err != nil {
		return raw
	}
	return v.K
}

// lines turns byte offsets into lines and columns.
type lines []int

func newLines(text string) lines {
	starts := lines{0}
	for i := range len(text) {
		if text[i] == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

func (l lines) at(off int) (line, col int) {
	line = sort.SearchInts(l, off+1)
	return line, off - l[line-1] + 1
}
