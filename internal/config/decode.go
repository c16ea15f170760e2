package config

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/8265a91a/supervisor/internal/text"
)

// decoder collects the mistakes of one file while its tables are read.
type decoder struct {
	file     string
	text     string
	places   map[string]place
	lines    lines
	tables   []*table
	errs     Errors
	warnings Errors
}

// table is one TOML table that is being read. Its getters leave the destination
// as it is where the key is absent or wrong, so that defaults are set beforehand.
type table struct {
	d      *decoder
	name   string
	path   string
	values map[string]any
	// known are the keys that were asked for; the rest is unknown.
	known []string
}

func (d *decoder) table(name, path string, values map[string]any) *table {
	t := &table{d: d, name: name, path: path, values: values}
	d.tables = append(d.tables, t)
	return t
}

// report notes a mistake at path, or at the nearest table around it that stands in the text.
func (d *decoder) report(path, key string, err error) {
	d.errs = append(d.errs, d.mistake(path, key, err))
}

// warn notes what is not in the way.
func (d *decoder) warn(path, key string, err error) {
	d.warnings = append(d.warnings, d.mistake(path, key, err))
}

func (d *decoder) mistake(path, key string, err error) Error {
	e := Error{File: d.file, Key: key, Message: err.Error()}
	if p := (*problem)(nil); errors.As(err, &p) {
		e.Message, e.Hint = p.message, p.hint
	}
	for path != "" {
		if _, ok := d.places[path]; ok {
			break
		}
		path = path[:strings.LastIndexByte(path, 0)]
	}
	e.Line, e.Col = d.lines.at(d.places[path].key)
	return e
}

// source returns the text from where the value at path begins.
func (d *decoder) source(path string) string { return d.text[d.places[path].value:] }

func (t *table) key(name string) string {
	if t.name == "" {
		return name
	}
	return t.name + "." + name
}

func (t *table) has(name string) bool {
	_, ok := t.values[name]
	return ok
}

// fail reports a mistake of a key, or of the table where the key is absent.
func (t *table) fail(name string, err error) { t.d.report(child(t.path, name), t.key(name), err) }

// failAt reports a mistake of one element of a list.
func (t *table) failAt(name string, i int, err error) {
	t.d.report(element(child(t.path, name), i), t.key(name), err)
}

// get returns the value of a key and makes the key known.
func (t *table) get(name string) (any, bool) {
	t.known = append(t.known, name)
	v, ok := t.values[name]
	return v, ok
}

// text reads a string that must not be empty and pass check.
func (t *table) text(name string, dst *string, check func(string) error) {
	v, ok := t.get(name)
	if !ok {
		return
	}
	s, err := asText(v)
	if err == nil && s == "" {
		err = bad("", "is empty")
	}
	if err == nil && check != nil {
		err = check(s)
	}
	if err != nil {
		t.fail(name, err)
		return
	}
	*dst = s
}

// list reads an array that must not be empty and calls each for every element.
func (t *table) list(name string, each func(i int, v any) error) {
	v, ok := t.get(name)
	if !ok {
		return
	}
	items, err := asList(v)
	if err == nil && len(items) == 0 {
		err = bad("", "is empty")
	}
	if err != nil {
		t.fail(name, err)
		return
	}
	for i, item := range items {
		if err := each(i, item); err != nil {
			t.failAt(name, i, err)
		}
	}
}

// texts reads an array of strings, each of which must pass check.
func (t *table) texts(name string, dst *[]string, check func(i int, s string) error) {
	var list []string
	t.list(name, func(i int, v any) error {
		s, err := asText(v)
		if err != nil {
			return err
		}
		list = append(list, s)
		return check(i, s)
	})
	if list != nil {
		*dst = list
	}
}

// choice reads a string that must be one of allowed.
func (t *table) choice(name string, dst *string, allowed ...string) {
	t.text(name, dst, func(s string) error { return oneOf(s, allowed) })
}

// choices reads an array of different strings that must be among allowed.
func (t *table) choices(name string, dst *[]string, allowed ...string) {
	var seen []string
	t.texts(name, dst, func(_ int, s string) error {
		if slices.Contains(seen, s) {
			return bad("", "%q is there twice", s)
		}
		seen = append(seen, s)
		return oneOf(s, allowed)
	})
}

func oneOf(s string, allowed []string) error {
	if slices.Contains(allowed, s) {
		return nil
	}
	if near := text.Nearest(s, allowed); near != "" {
		return bad(fmt.Sprintf("did you mean %q?", near), "unknown value %q", s)
	}
	return bad("one of "+quoted(allowed), "unknown value %q", s)
}

func (t *table) boolean(name string, dst *bool) {
	v, ok := t.get(name)
	if !ok {
		return
	}
	b, ok := v.(bool)
	if !ok {
		t.fail(name, bad("write true or false", "must be a boolean, not %s", kind(v)))
		return
	}
	*dst = b
}

// optionalBoolean reads a boolean of which absence means something of its own.
func (t *table) optionalBoolean(name string, dst **bool) {
	if t.has(name) {
		*dst = new(bool)
	}
	var b bool
	t.boolean(name, &b)
	if t.has(name) {
		**dst = b
	}
}

func (t *table) integer(name string, dst *int, low, high int64) {
	v, ok := t.get(name)
	if !ok {
		return
	}
	n, ok := v.(int64)
	if !ok {
		t.fail(name, bad("write a whole number without quotes", "must be an integer, not %s", kind(v)))
		return
	}
	if n < low || n > high {
		hint := fmt.Sprintf("at least %d", low)
		if high < math.MaxInt32 {
			hint = fmt.Sprintf("%d to %d", low, high)
		}
		t.fail(name, bad(hint, "%d is out of range", n))
		return
	}
	*dst = int(n)
}

// positive is the least duration that is not 0.
const positive = time.Nanosecond

// duration reads a duration of at least low.
func (t *table) duration(name string, dst *time.Duration, low time.Duration) {
	v, ok := t.get(name)
	if !ok {
		return
	}
	d, err := asDuration(v)
	if err == nil && d < low {
		err = bad("", "must be at least %v, not %v", low, d)
		if low == positive {
			err = bad("", "must be more than 0")
		}
	}
	if err != nil {
		t.fail(name, err)
		return
	}
	*dst = d
}
