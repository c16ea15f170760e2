package config

import (
	"fmt"
	"slices"

	"github.com/8265a91a/supervisor/internal/text"
)

// reportUnknown reports every key that no getter asked for. It runs last, when all keys of all tables are known.
func (d *decoder) reportUnknown() {
	for _, t := range d.tables {
		for name := range t.values {
			if slices.Contains(t.known, name) {
				continue
			}
			what := "unknown key"
			switch t.values[name].(type) {
			case map[string]any, []map[string]any:
				what = "unknown table"
			}
			t.fail(name, bad(d.suggest(t, name), "%s", what))
		}
	}
}

// suggest says what was probably meant: a similar key of the same table, or the same key of another one.
func (d *decoder) suggest(t *table, name string) string {
	if near := text.Nearest(name, t.known); near != "" {
		if t.name == "" {
			return fmt.Sprintf("did you mean %s?", bracketed(near))
		}
		return fmt.Sprintf("did you mean %q?", near)
	}
	for _, other := range d.tables {
		if other != t && other.name != "" && slices.Contains(other.known, name) {
			return fmt.Sprintf("%q is a key of %s", name, bracketed(other.name))
		}
	}
	if t.name == "" {
		return "the tables are [worker], [ready], [drain], [handoff] and [[socket]]"
	}
	known := slices.Clone(t.known)
	slices.Sort(known)
	return "known are " + quoted(slices.Compact(known))
}

func bracketed(name string) string {
	if name == "socket" {
		return "[[socket]]"
	}
	return "[" + name + "]"
}
