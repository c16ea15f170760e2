package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// nasty holds every way in which TOML can hide a key, or show one where there is none.
const nasty = `# [comment] a = 1
[ worker . "environment" ] # ] x = 2
'quoted = # key' = "x = \" # ]" # c
"esc\u0061ped\t.key"=1
empty.''.x = { a = [ 1, { b = "}" } ], 'c.d' = """
]  x = 1
\""" """"", e.f = 2 }
ml = '''
[not.a.table]
\'''
basic = """a"""""
[[socket]]
name = "a" # [[socket]]
list = [ # comment ]
  "]", # ,
  [ 1, 2 ], [ ],
  { x = 1 }, { },

  1979-05-27 07:32:00Z, -inf,
]
  [socket.sub]
  k = 'v'
[[socket.sub2]]
z=1
[[socket.sub2]]
z=2
[[socket]]
name = 0x_1
"" = ""
[a]
b.c.d.e = 1
[a.b.f]
`

func TestScanNasty(t *testing.T) {
	text := strings.ReplaceAll(nasty, "0x_1", "0x1")
	for _, text := range []string{text, strings.ReplaceAll(text, "\n", "\r\n")} {
		checkPlaces(t, text)
		places, lines := scan(text), newLines(text)
		for path, want := range map[string]int{
			"worker": 2, "worker|environment": 2, "worker|environment|quoted = # key": 3,
			"worker|environment|escaped\t.key": 4, "worker|environment|empty||x": 5,
			"worker|environment|ml": 8, "worker|environment|basic": 11,
			"socket": 12, "socket|#0": 12, "socket|#0|name": 13, "socket|#0|list|#0": 15, "socket|#0|list|#1": 16,
			"socket|#0|list|#1|#1": 16, "socket|#0|list|#2": 16, "socket|#0|list|#3|x": 17, "socket|#0|list|#4": 17,
			"socket|#0|list|#5": 19, "socket|#0|list|#6": 19, "socket|#0|sub": 21, "socket|#0|sub|k": 22,
			"socket|#0|sub2|#0|z": 24, "socket|#0|sub2|#1": 25, "socket|#0|sub2|#1|z": 26,
			"socket|#1": 27, "socket|#1|name": 28, "socket|#1|": 29,
			"a|b": 31, "a|b|c|d|e": 31, "a|b|f": 32,
		} {
			p, ok := places["\x00"+strings.ReplaceAll(path, "|", "\x00")]
			if line, _ := lines.at(p.key); !ok || line != want {
				t.Errorf("%q is in line %d, want %d (found: %v)", path, line, want, ok)
			}
		}
	}
}

func TestLines(t *testing.T) {
	l := newLines("ab\n\nc")
	for off, want := range [][2]int{{1, 1}, {1, 2}, {1, 3}, {2, 1}, {3, 1}, {3, 2}} {
		if line, col := l.at(off); line != want[0] || col != want[1] {
			t.Errorf("%d is at %d:%d, want %v", off, line, col, want)
		}
	}
}

// checkPlaces compares the scanner with the library: every key must have a place, and nothing else.
func checkPlaces(t *testing.T, text string) {
	t.Helper()
	var values map[string]any
	if _, err := toml.Decode(text, &values); err != nil {
		t.Fatalf("the library refuses the text: %v", err)
	}
	want := map[string]bool{}
	comparePlaces(want, "", values)
	delete(want, deep)
	places := scan(text)
	for path := range want {
		p, ok := places[path]
		if !ok {
			t.Fatalf("%q has no place in\n%s", path, text)
		}
		if p.key < 0 || p.key >= len(text) || p.value < 0 || p.value >= len(text) {
			t.Fatalf("%q is outside of the text: %+v\n%s", path, p, text)
		}
	}
	for path := range places {
		if !want[path] {
			t.Fatalf("%q is not there in\n%s", path, text)
		}
	}
}

func comparePlaces(want map[string]bool, path string, v any) {
	if path != "" {
		want[path] = true
	}
	if values, ok := v.(map[string]any); ok {
		for k, v := range values {
			comparePlaces(want, child(path, k), v)
		}
		return
	}
	if _, ok := v.(string); ok {
		return
	}
	items, _ := asList(v)
	for i, v := range items {
		comparePlaces(want, element(path, i), v)
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.toml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(nasty))
	f.Add([]byte("a = 1\nb = \"\\"))
	f.Add([]byte("\xfe\xff"))
	f.Add([]byte("[worker]\ncommand = [\"/bin/a\", \"${fd:x\"]\n[[socket]]\nmode = 0o660\n[[socket]]\nlisten = 1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("web", "f", data)
		if (c == nil) == (err == nil) {
			t.Fatalf("got %v and %v", c, err)
		}
		if err != nil {
			checkErrors(t, err, data)
		}
		text := strings.TrimPrefix(string(data), "\ufeff")
		scan(text)
		// A NUL in a key looks like the end of a part of a path; lines may be less exact then.
		if _, err := parseTOML("f", text); err == nil && !strings.Contains(text, "\\") {
			checkPlaces(t, text)
		}
	})
}

func checkErrors(t *testing.T, err error, data []byte) {
	list, ok := err.(Errors)
	if !ok || len(list) == 0 {
		t.Fatalf("is no list of errors: %v", err)
	}
	if n := strings.Count(err.Error(), "\n"); n != len(list)-1 {
		t.Fatalf("%d errors in %d lines: %v", len(list), n+1, err)
	}
	for i, e := range list {
		if e.Line < 1 || e.Line > strings.Count(string(data), "\n")+1 || e.Message == "" || i > 0 && e.Line < list[i-1].Line {
			t.Fatalf("error %d has an impossible line or no text: %#v", i, e)
		}
	}
}
