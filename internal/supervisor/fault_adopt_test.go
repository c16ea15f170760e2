//go:build fault

package supervisor_test

import (
	"fmt"
	"strings"
	"testing"
)

// A child that an adopted worker starts while the new supervisor looks around is nobody's remains.
func TestAdoptedWorkerForks(t *testing.T) {
	t.Parallel()
	s := faulty(t, "start-first")
	s.start()
	s.settled()
	s.kill()
	answered := make(chan error, 1)
	s.startedAt("strays", func() {
		go func() {
			body, err := get("tcp", s.addr, "/child?ms=1000")
			if err == nil && !strings.HasSuffix(body, "child: <nil>\n") {
				err = fmt.Errorf("answer %q", body)
			}
			answered <- err
		}()
		s.underWay()
	})
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if w := s.warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	s.stop()
}
