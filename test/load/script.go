package load

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// Step is one exchange of a protocol that is not HTTP.
type Step struct {
	// Send is sent first, unless it is empty: a server that greets speaks first.
	Send string
	// Expect is waited for; whatever comes before it is passed over.
	Expect string
}

// maxAnswer bounds what is read in one step.
const maxAnswer = 64 << 10

// converse goes through the steps of [Options.Script]. A server that answers something else runs into the timeout,
// or is one that ended the connection too early.
func (r *Run) converse(conn net.Conn, in *bufio.Reader) (answer, error) {
	a := answer{status: http.StatusOK, empty: true}
	for _, step := range r.options.Script {
		if step.Send != "" {
			if _, err := io.WriteString(conn, step.Send); err != nil {
				return a, err
			}
		}
		var got strings.Builder
		for !strings.HasSuffix(got.String(), step.Expect) {
			c, err := in.ReadByte()
			if err != nil {
				return a, err
			}
			a.empty = false
			got.WriteByte(c)
			if got.Len() > maxAnswer {
				return a, fmt.Errorf("no %q in the first %d bytes of the answer", step.Expect, maxAnswer)
			}
		}
		a.body = append(a.body, got.String()...)
	}
	return a, nil
}
