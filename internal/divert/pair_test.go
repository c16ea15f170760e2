package divert_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/divert"
	"github.com/8265a91a/supervisor/internal/sys"
)

// open binds spec and closes it when the test ends.
func open(t testing.TB, spec sys.ListenSpec) *sys.FD {
	t.Helper()
	fd, err := sys.OpenListener(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fd.Close() })
	return fd
}

func join(t testing.TB, a *sys.FD) *sys.FD {
	t.Helper()
	b, err := divert.Join(a.Num())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func inspect(t testing.TB, fd *sys.FD) sys.Socket {
	t.Helper()
	s, err := sys.Inspect(fd.Num())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// side serves one socket of a pair: it answers with its letter, and counts.
type side struct {
	letter string
	served atomic.Int64
	stop   func()
}

// serve answers on a duplicate of fd until the test ends or stop is called.
func serve(t testing.TB, fd *sys.FD, letter string) *side {
	t.Helper()
	dup, err := fd.Dup()
	if err != nil {
		t.Fatal(err)
	}
	f := dup.File(letter)
	defer f.Close()
	s := &side{letter: letter}
	var wg sync.WaitGroup
	if inspect(t, fd).Network == "udp" {
		c, err := net.FilePacketConn(f)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { s.packets(c) })
		s.stop = sync.OnceFunc(func() { c.Close(); wg.Wait() })
	} else {
		l, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { s.connections(l, &wg) })
		s.stop = sync.OnceFunc(func() { l.Close(); wg.Wait() })
	}
	t.Cleanup(s.stop)
	return s
}

func (s *side) packets(c net.PacketConn) {
	buf := make([]byte, 64)
	for {
		_, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		s.served.Add(1)
		_, _ = c.WriteTo([]byte(s.letter), from)
	}
}

func (s *side) connections(l net.Listener, wg *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.served.Add(1)
		wg.Go(func() {
			defer c.Close()
			_, _ = c.Read(make([]byte, 1))
			_, _ = c.Write([]byte(s.letter))
		})
	}
}

// ask makes one request and returns the letter of the side that answered.
func ask(network, address string) (string, error) { return askLate(network, address, 0) }

// askLate sends its request only a while after it has connected.
func askLate(network, address string, wait time.Duration) (string, error) {
	c, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	time.Sleep(wait)
	if _, err := c.Write([]byte("?")); err != nil {
		return "", err
	}
	buf := make([]byte, 1)
	if _, err := io.ReadFull(c, buf); err != nil {
		return "", err
	}
	return string(buf), nil
}

// expect asks n times and wants each answer from letter.
func expect(t testing.TB, network, address, letter string, n int) {
	t.Helper()
	for range n {
		got, err := ask(network, address)
		if err != nil || got != letter {
			t.Fatalf("%s %s: answered by %q (%v), want %s", network, address, got, err, letter)
		}
	}
}

// load asks from several clients until stop, and reports how many requests were made and every failure.
func load(network, address string, clients int) (stop func() (requests int64, failures []error)) {
	return loadLate(network, address, clients, 0)
}

func loadLate(network, address string, clients int, wait time.Duration) (stop func() (requests int64, failures []error)) {
	var requests atomic.Int64
	var mu sync.Mutex
	var failures []error
	var wg sync.WaitGroup
	quit := make(chan struct{})
	for range clients {
		wg.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				requests.Add(1)
				if _, err := askLate(network, address, wait); err != nil {
					mu.Lock()
					failures = append(failures, err)
					mu.Unlock()
				}
			}
		})
	}
	return func() (int64, []error) {
		close(quit)
		wg.Wait()
		return requests.Load(), failures
	}
}
