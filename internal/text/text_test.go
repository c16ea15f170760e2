package text_test

import (
	"os"
	"testing"

	"github.com/8265a91a/supervisor/internal/leaktest"
	"github.com/8265a91a/supervisor/internal/text"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }

func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":             "",
		"plain, ünï":   "plain, ünï",
		"a\x1b[31mred": `a\x1b[31mred`,
		"two\nlines\t": `two\nlines\t`,
		"\x00\u0085":   `\x00\u0085`,
	} {
		if got := text.Printable(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
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
