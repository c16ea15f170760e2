package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxSize bounds the file: ten thousand [[socket]] tables are half of it.
const maxSize = 1 << 20

// maxDepth bounds nested brackets: the TOML library recurses for each, and takes 1 GB of memory for a megabyte of them.
const maxDepth = 100

// Load reads the file at path. The service's name is the file name without ".toml".
// The error is an [Errors] with all mistakes unless the file cannot be read.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(strings.TrimSuffix(filepath.Base(path), ".toml"), path, data)
}

// Parse makes a Config of data, the text of the service called name; path is only quoted.
// The error is always an [Errors] with all mistakes; mistakes of the TOML syntax hide the others.
func Parse(name, path string, data []byte) (*Config, error) {
	return parse(name, path, data, (*decoder).contradictions)
}

// Recall reads the text of a configuration that was in force, so that an upgrade costs no worker: what Parse refuses
// only because its keys contradict each other was accepted by the supervisor that wrote it down.
func Recall(name, path string, data []byte) (*Config, error) {
	return parse(name, path, data, func(*decoder, *Config) {})
}

func parse(name, path string, data []byte, further func(*decoder, *Config)) (*Config, error) {
	text := strings.TrimPrefix(string(data), "\ufeff")
	values, err := parseTOML(path, text)
	if err != nil {
		return nil, err
	}
	d := &decoder{file: path, text: text, places: scan(text), lines: newLines(text)}
	sum := sha256.Sum256(data)
	c := &Config{Name: name, Path: path, Sum: hex.EncodeToString(sum[:]), Text: string(data)}
	d.config(values, c)
	further(d, c)
	d.reportUnknown()
	if err := CheckName(name); err != nil {
		d.errs = append(d.errs, Error{File: path, Message: err.Error(), Hint: `a file such as "web.toml"`})
	}
	if len(d.errs) > 0 {
		d.errs.sort()
		return nil, d.errs
	}
	d.warnings.sort()
	c.Warnings = d.warnings
	return c, nil
}

// CheckName says whether name can be the name of a service: a part of a unit's name and of the paths
// of the runtime directory, of 1 to 64 letters, digits, "_", "-", "." and "@" that begins with a letter or digit.
func CheckName(name string) error {
	if name == "" {
		return errors.New("the service's name is empty")
	}
	if len(name) > 64 {
		return fmt.Errorf("the service's name is %d bytes long, at most 64 fit into the paths of its sockets", len(name))
	}
	for i, c := range name {
		alphanumeric := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alphanumeric && (i == 0 || !strings.ContainsRune("_-.@", c)) {
			return fmt.Errorf("the service's name %q has %q in it at byte %d", name, c, i+1)
		}
	}
	return nil
}

func parseTOML(path, text string) (map[string]any, error) {
	if len(text) > maxSize {
		return nil, Errors{{File: path, Message: fmt.Sprintf("is larger than %d bytes", maxSize)}}
	}
	for _, mark := range []string{"\xff\xfe", "\xfe\xff", "\ufeff"} { // the library would skip it, and positions be wrong
		if strings.HasPrefix(text, mark) {
			return nil, Errors{{File: path, Line: 1, Col: 1, Message: "begins with a byte-order mark that is not UTF-8's, or with two"}}
		}
	}
	depth := 0
	for i := range len(text) {
		switch text[i] {
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(depth-1, 0)
		}
		if depth > maxDepth {
			line, col := newLines(text).at(i)
			return nil, Errors{{File: path, Line: line, Col: col, Message: fmt.Sprintf("more than %d brackets are open", maxDepth)}}
		}
	}
	var values map[string]any
	_, err := toml.Decode(text, &values)
	if err == nil {
		return values, nil
	}
	e := Error{File: path, Message: err.Error()}
	if p := (toml.ParseError{}); errors.As(err, &p) {
		// The library's line is one too small for some errors at the end of the file.
		e.Line, e.Col = newLines(text).at(max(0, min(p.Position.Start, len(text))))
		e.Key, e.Message = p.LastKey, strings.TrimSuffix(p.Message, ".")
	}
	return nil, Errors{e}
}
