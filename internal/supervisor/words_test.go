package supervisor_test

import (
	"os"
	"strings"
	"testing"

	"github.com/8265a91a/supervisor/internal/supervisor"
)

// The most common mistake of a first configuration has its cure beside it, and the next failure is not explained by the
// words of the last.
func TestLastWords(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.start()
	s.arguments("-bind=tcp:" + s.addr)
	r, err := s.try(true)
	if err != nil || r.OK || !strings.Contains(r.Output, "address already in use") || !strings.Contains(r.Hint, `sockets = ["bind"]`) {
		t.Errorf("%v, %+v", err, r)
	}
	s.arguments("-exit=3", "-stderr=not today")
	r, err = s.try(true)
	if err != nil || r.OK || r.Output != "not today" || r.Hint != "" {
		t.Errorf("%v, %+v", err, r)
	}
	s.arguments("-exit=3")
	if r, err = s.try(true); err != nil || r.OK || r.Output != "" {
		t.Errorf("%v, %+v", err, r)
	}
	s.arguments()
	s.reload()
	if err := os.Remove(s.configFile()); err != nil {
		t.Fatal(err)
	}
	if c := s.status().Config; !strings.Contains(c.Error, "no such file") {
		t.Errorf("the configuration is gone, and status says %+v", c)
	}
	s.stop()
}

func TestHint(t *testing.T) {
	for words, said := range map[string]bool{
		"nginx: [emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)": true,
		"[ERROR] Connection in use: ('127.0.0.1', 8000)":                          true,
		"Error: listen EADDRINUSE":                                                true,
		"address is not in use":                                                   false,
		"":                                                                        false,
	} {
		for _, c := range []struct{ convention, part string }{{"systemd", `sockets = ["bind"]`}, {"bind", "no socket of the service has"}} {
			if hint := supervisor.Hint(words, []string{c.convention}); strings.Contains(hint, c.part) != said || said == (hint == "") {
				t.Errorf("%s, %s: %q", words, c.convention, hint)
			}
		}
		if hint := supervisor.Hint(words, []string{"getsocks"}); hint != "" {
			t.Errorf("%s: %q", words, hint)
		}
	}
}

// A start that fails is one sentence in the log.
func TestFailedStartIsSaidOnce(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	s.arguments("-exit=3", "-stderr=not today")
	s.launch()
	if exit := s.ended(); exit.Code != 1 {
		t.Errorf("exit %+v", exit)
	}
	if n := strings.Count(s.log(), "the worker ended before it was ready"); n != 1 {
		t.Errorf("said %d times", n)
	}
}
