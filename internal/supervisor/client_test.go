package supervisor_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// ask makes one connection, one request, and returns the first line of the answer: "pid=N gen=G".
func ask(addr string) (string, error) { return askAt("tcp", addr) }

func askPath(addr, path string) (string, error) { return firstLine(get("tcp", addr, path)) }

func askAt(network, addr string) (string, error) { return firstLine(get(network, addr, "/")) }

func firstLine(body string, err error) (string, error) {
	line, _, _ := strings.Cut(body, "\n")
	return line, err
}

// get makes one connection, one request, and returns the answer's body.
func get(network, addr, path string) (string, error) {
	conn, err := net.DialTimeout(network, addr, 20*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return body(conn, path)
}

// request makes the only request of a connection, and returns the first line of the answer.
func request(conn net.Conn, path string) (string, error) { return firstLine(body(conn, path)) }

// body makes the only request of a connection, and returns the answer's body.
func body(conn net.Conn, path string) (string, error) {
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	data, err := io.ReadAll(conn)
	if err != nil {
		return "", err
	}
	_, body, ok := strings.Cut(string(data), "\r\n\r\n")
	if !ok {
		return "", fmt.Errorf("cut: %q", data)
	}
	return body, nil
}

// clients ask without a pause until they are told to stop.
type clients struct {
	t    *testing.T
	stop chan struct{}
	wait sync.WaitGroup

	mu     sync.Mutex
	total  int
	failed map[string]int
}

const clientCount = 2

// load begins to ask the service. The test calls end.
func (s *service) load() *clients {
	c := &clients{t: s.t, stop: make(chan struct{}), failed: map[string]int{}}
	for range clientCount {
		c.wait.Go(func() {
			for {
				_, err := ask(s.addr)
				c.count(err)
				select {
				case <-c.stop:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
	}
	s.t.Cleanup(c.finish)
	return c
}

func (c *clients) count(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total++
	switch {
	case err == nil:
	case errors.Is(err, syscall.ECONNREFUSED):
		c.failed["refused"]++
	case errors.Is(err, syscall.ECONNRESET):
		c.failed["reset"]++
	case strings.HasPrefix(err.Error(), "cut"):
		c.failed["cut"]++
	default:
		c.failed[err.Error()]++
	}
}

func (c *clients) finish() {
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	c.wait.Wait()
}

// end stops the clients. No request may have failed.
func (c *clients) end() {
	c.t.Helper()
	c.endAfter(0)
}

// endAfter stops the clients after so many workers were killed that accepted: what each had accepted died with it, one
// connection of each client at most. Nothing else may have failed.
func (c *clients) endAfter(kills int) {
	c.t.Helper()
	c.finish()
	cut := c.failed["reset"] + c.failed["cut"]
	others := maps.Clone(c.failed)
	delete(others, "reset")
	delete(others, "cut")
	if len(others) > 0 || cut > kills*clientCount || c.total == 0 {
		c.t.Errorf("of %d requests failed %v, %d may be cut", c.total, c.failed, kills*clientCount)
	}
}
