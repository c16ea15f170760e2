package text_test

import (
	"os"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/8265a91a/supervisor/internal/leaktest"
	"github.com/8265a91a/supervisor/internal/text"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }

func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":               "",
		"plain, ünï":     "plain, ünï",
		"a\x1b[31mred":   `a\x1b[31mred`,
		"two\nlines\t":   `two\nlines\t`,
		"\x00\u0085":     `\x00\u0085`,
		"\x9b31m\xff":    `\x9b31m\xff`, // 0x9b is ESC [ to a terminal of 8 bits
		"a\u202eb\u2028": `a\u202eb\u2028`,
		"\ufffd 'q'":     "\ufffd 'q'",
	} {
		if got := text.Printable(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// Nothing of category C (control, format) is left, nothing that ends a line, and no byte outside of UTF-8.
func FuzzPrintable(f *testing.F) {
	for _, seed := range []string{"plain, ünï", "a\x1b[31mred", "\x9b2J", "two\nlines\r\n", "\u202etxt.exe", "\u2028\u0085", "\xed\xa0\x80", "'\\"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		out := text.Printable(s)
		if !utf8.ValidString(out) || strings.ContainsFunc(out, func(r rune) bool { return unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) }) {
			t.Errorf("%q became %q", s, out)
		}
		if again := text.Printable(out); again != out {
			t.Errorf("%q became %q, and then %q", s, out, again)
		}
	})
}

func TestLastLines(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "one": "one", "one\n\n two \n": "one | two", "1\n2\n3\n4\n": "2 | 3 | 4",
	} {
		if got := text.LastLines(in, 3); got != want {
			t.Errorf("last lines of %q are %q, want %q", in, got, want)
		}
	}
}

func TestEnds(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "one\n\n two \n": "one | two", "1\n2\n3\n": "1 | 2 | 3", "1\n2\n3\n4\n": "1 | 2 | 3 | 4", "1\n2\n3\n4\n5": "1 | … 2 lines … | 4 | 5",
	} {
		if got := text.Ends(in, 1, 2); got != want {
			t.Errorf("ends of %q are %q, want %q", in, got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	words := []string{"reload", "status", "fds", "check"}
	for in, want := range map[string]string{
		"relod": "reload", "staus": "status", "reload": "reload", "fetch-all": "", "": "", "x": "",
	} {
		if got := text.Nearest(in, words); got != want {
			t.Errorf("nearest to %q is %q, want %q", in, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"reload", "reload", 0}, {"relaod", "reload", 2}, {"fds", "fd", 1}, {"kitten", "sitting", 3}} {
		if got := text.Distance(tc.a, tc.b); got != tc.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tc.a, tc.b, got, tc.want)
		}
	}
}
