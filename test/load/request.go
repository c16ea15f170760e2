package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// outcome is one request: what it met, how long it took and who answered.
type outcome struct {
	kind   Kind
	took   time.Duration
	worker string
	err    error
}

// single is one request on a connection of its own. It does not end with the run: a request under way is finished,
// because one that the client gave up would look like one that the server lost.
func (r *Run) single(class Class) outcome {
	start := time.Now()
	conn, err := r.dial(start)
	if err != nil {
		return failed(start, err)
	}
	defer conn.Close()
	path := r.options.Path
	switch class {
	case Late:
		time.Sleep(r.options.Late)
	case Slow:
		path = r.options.SlowPath
	}
	answer, err := r.exchange(conn, bufio.NewReader(conn), path, true)
	if err != nil {
		return failed(start, err)
	}
	return r.judge(start, answer)
}

// keep sends requests over one connection and opens another only when the server ended the first.
func (r *Run) keep(ctx context.Context) {
	var conn net.Conn
	var in *bufio.Reader
	drop := func() {
		if conn != nil {
			conn.Close()
			conn = nil
		}
	}
	defer drop()
	for r.take(ctx) {
		start := time.Now()
		reused := conn != nil
		if !reused {
			var err error
			if conn, err = r.dial(start); err != nil {
				conn = nil
				r.record(Keep, failed(start, err))
				if !sleep(ctx, r.options.Interval) {
					return
				}
				continue
			}
			in = bufio.NewReader(conn)
		}
		_ = conn.SetDeadline(start.Add(r.options.Timeout))
		answer, err := r.exchange(conn, in, r.options.Path, false)
		switch {
		case err != nil:
			o := failed(start, err)
			// Nothing came back on a connection that had worked: the server closed it while it was idle.
			if reused && answer.empty && (o.kind == Cut || o.kind == Reset) {
				o.kind = Idle
			}
			r.record(Keep, o)
			drop()
		default:
			r.record(Keep, r.judge(start, answer))
			if answer.close {
				drop()
			}
		}
		if !sleep(ctx, r.options.Interval) {
			return
		}
	}
}

// dial connects, with the deadline of the whole request set on the connection.
func (r *Run) dial(start time.Time) (net.Conn, error) {
	deadline := start.Add(r.options.Timeout)
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	conn, err := r.options.Dial(ctx, r.options.Target.Network, r.options.Target.Address)
	// connect(2) on a non-blocking unix socket says EAGAIN where a blocking one would wait for room in the backlog.
	for errors.Is(err, syscall.EAGAIN) && sleep(ctx, time.Millisecond) {
		conn, err = r.options.Dial(ctx, r.options.Target.Network, r.options.Target.Address)
	}
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(deadline)
	if r.options.Target.TLS {
		return tls.Client(conn, insecure()), nil
	}
	return conn, nil
}

// answer is a whole HTTP response. empty says that not one byte of it came.
type answer struct {
	status int
	header http.Header
	body   []byte
	close  bool
	empty  bool
}

func (r *Run) exchange(conn net.Conn, in *bufio.Reader, path string, last bool) (answer, error) {
	if len(r.options.Script) > 0 {
		return r.converse(conn, in)
	}
	request := "GET " + path + " HTTP/1.1\r\nHost: test\r\nUser-Agent: load\r\n"
	if last {
		request += "Connection: close\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		return answer{empty: true}, err
	}
	if _, err := in.Peek(1); err != nil {
		return answer{empty: true}, err
	}
	response, err := http.ReadResponse(in, nil)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{status: response.StatusCode, header: response.Header, body: body, close: response.Close}, err
}

func (r *Run) judge(start time.Time, a answer) outcome {
	o := outcome{took: time.Since(start), worker: workerOf(a.header, a.body)}
	if a.status != http.StatusOK {
		o.kind, o.err = Wrong, fmt.Errorf("status %d: %.80q", a.status, a.body)
	} else if r.options.Check != nil {
		if err := r.options.Check(a.status, a.body); err != nil {
			o.kind, o.err = Wrong, err
		}
	}
	return o
}

// datagram sends one datagram from a socket of its own and waits for the answer.
func (r *Run) datagram() outcome {
	start := time.Now()
	ctx, cancel := context.WithDeadline(context.Background(), start.Add(r.options.Timeout))
	defer cancel()
	conn, err := r.options.Dial(ctx, "udp", r.options.Target.Address)
	if err != nil {
		return failed(start, err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(start.Add(r.options.Timeout))
	sent := fmt.Sprintf("load %d", start.UnixNano())
	expected := sent
	if len(r.options.Script) > 0 {
		sent, expected = r.options.Script[0].Send, r.options.Script[0].Expect
	}
	if _, err := io.WriteString(conn, sent); err != nil {
		return failed(start, err)
	}
	buf := make([]byte, 2048)
	n, err := conn.Read(buf)
	if err != nil {
		return failed(start, err)
	}
	o := outcome{took: time.Since(start), worker: workerOf(nil, buf[:n])}
	if !bytes.Contains(buf[:n], []byte(expected)) {
		o.kind, o.err = Wrong, fmt.Errorf("answer %.80q to %q", buf[:n], sent)
	}
	return o
}

// workerOf reads who answered: the header X-Worker, or "pid=N" in the body.
func workerOf(header http.Header, body []byte) string {
	if w := header.Get("X-Worker"); w != "" {
		return w
	}
	_, rest, found := strings.Cut(string(body), "pid=")
	if !found {
		return ""
	}
	end := strings.IndexFunc(rest, func(c rune) bool { return c < '0' || c > '9' })
	if end < 0 {
		end = len(rest)
	}
	return rest[:end]
}

func failed(start time.Time, err error) outcome {
	return outcome{kind: kindOf(err), took: time.Since(start), err: err}
}

func kindOf(err error) Kind {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		return Refused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED):
		return Reset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Cut
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT),
		errors.Is(err, syscall.EAGAIN), errors.As(err, &timeout) && timeout.Timeout():
		return Timeout
	}
	return Other
}
