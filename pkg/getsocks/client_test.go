package getsocks_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/getsocks"
)

func TestFetchHowPeersAnswer(t *testing.T) {
	held := listeners(t, 4)
	ack := func(c *net.UnixConn) { readAck(c) }
	for _, tc := range []struct {
		name   string
		script func(c *net.UnixConn)
		want   []getsocks.Socket
	}{
		{"one batch", func(c *net.UnixConn) {
			send(c, number(2))
			send(c, plain(2), held[:2]...)
			ack(c)
		}, sockets(held[:2])},
		{"a zero count", func(c *net.UnixConn) { send(c, number(0)) }, nil},
		{"names", func(c *net.UnixConn) {
			send(c, number(3))
			send(c, []byte("\x00\x00\x00\x00\x00\x00"+"\x00\x02lo\x00\x00\x00\x00"+"\x04raha\x00\x00\x00\x00\x00"), held[:3]...)
			ack(c)
		}, []getsocks.Socket{{FD: held[0]}, {FD: held[1], Interface: "lo"}, {FD: held[2], Namespace: "raha"}}},
		{"options of HAProxy 1.8 and longest names", func(c *net.UnixConn) {
			long := strings.Repeat("n", 255)
			send(c, number(1))
			send(c, []byte("\xff"+long+"\xff"+long+"\x84\x00\x00\x00"), held[0])
			ack(c)
		}, []getsocks.Socket{{FD: held[0], Namespace: strings.Repeat("n", 255), Interface: strings.Repeat("n", 255)}}},
		{"count in two pieces", func(c *net.UnixConn) {
			send(c, number(1)[:1])
			send(c, number(1)[1:])
			send(c, plain(1), held[0])
			ack(c)
		}, sockets(held[:1])},
		{"batches of one, each acknowledged", func(c *net.UnixConn) {
			send(c, number(3))
			for _, fd := range held[:3] {
				send(c, plain(1), fd)
				ack(c)
			}
		}, sockets(held[:3])},
		{"batches that do not wait for the acknowledgement", func(c *net.UnixConn) {
			send(c, number(4))
			for _, fd := range held {
				send(c, plain(1), fd)
			}
			for range held {
				ack(c)
			}
		}, sockets(held)},
		{"metadata in pieces behind its descriptors", func(c *net.UnixConn) {
			send(c, number(2))
			send(c, plain(2)[:1], held[:2]...)
			ack(c)
			send(c, plain(2)[1:7])
			send(c, plain(2)[7:])
		}, sockets(held[:2])},
		{"rest of one batch glued to the next", func(c *net.UnixConn) {
			send(c, number(2))
			send(c, []byte("\x02n"), held[0])
			send(c, []byte("1\x00\x00\x00\x00\x00"))
			send(c, []byte("\x00\x02lo\x00\x00\x00\x00"), held[1])
			ack(c)
			ack(c)
		}, []getsocks.Socket{{FD: held[0], Namespace: "n1"}, {FD: held[1], Interface: "lo"}}},
		{"closed without reading the last acknowledgement", func(c *net.UnixConn) {
			send(c, number(2))
			send(c, plain(2), held[:2]...)
		}, sockets(held[:2])},
		{"closed without reading any acknowledgement", func(c *net.UnixConn) {
			send(c, number(2))
			send(c, plain(1), held[0])
			send(c, plain(1), held[1])
		}, sockets(held[:2])},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := peer(t, func(c *net.UnixConn) {
				readRequest(c)
				tc.script(c)
			})
			got, err := getsocks.FetchConn(patient(t), c)
			if err != nil {
				t.Fatal(err)
			}
			defer getsocks.CloseAll(got)
			if diff := cmp.Diff(identities(t, tc.want), identities(t, got)); diff != "" {
				t.Errorf("sockets (-want +got):\n%s", diff)
			}
			for i := range got {
				if got[i].Namespace != tc.want[i].Namespace || got[i].Interface != tc.want[i].Interface {
					t.Errorf("names of socket %d are %q and %q", i, got[i].Namespace, got[i].Interface)
				}
			}
		})
	}
}

func TestFetchRefusesAndLosesNothing(t *testing.T) {
	held := listeners(t, 3)
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	notSocket := sys.NewFD(int(file.Fd()))
	defer func() { notSocket.Disown(); file.Close() }()

	for _, tc := range []struct {
		name   string
		script func(c *net.UnixConn)
		want   string
	}{
		{"nothing", func(*net.UnixConn) {}, "expose-fd listeners"},
		{"half a count", func(c *net.UnixConn) { send(c, number(1)[:2]) }, "unexpected EOF"},
		{"negative count", func(c *net.UnixConn) { send(c, number(-1)) }, "announced -1"},
		{"huge count", func(c *net.UnixConn) { send(c, number(65537)) }, "announced 65537"},
		{"text", func(c *net.UnixConn) { send(c, []byte("Unknown command\n")) }, `"Unkn"`},
		{"more than the limit on descriptors", func(c *net.UnixConn) { send(c, number(65536)) }, "RLIMIT_NOFILE"},
		{"descriptors with the count", func(c *net.UnixConn) { send(c, number(1), held[0]) }, "before it said how many"},
		{"too few", func(c *net.UnixConn) {
			send(c, number(3))
			send(c, plain(2), held[:2]...)
			readAck(c)
		}, "after 2 of 3 sockets"},
		{"dead in the middle, acknowledgement unread", func(c *net.UnixConn) {
			send(c, number(3))
			send(c, plain(1), held[0])
		}, "after 1 of 3 sockets"},
		{"too many", func(c *net.UnixConn) {
			send(c, number(1))
			send(c, plain(2), held[:2]...)
		}, "announced 1 sockets and sent at least 2"},
		{"count and metadata but no descriptor, as the master socket does", func(c *net.UnixConn) {
			send(c, number(1))
			send(c, plain(1))
		}, "after 0 of 1 sockets"},
		{"metadata too short", func(c *net.UnixConn) {
			send(c, number(2))
			send(c, plain(1), held[:2]...)
			readAck(c)
		}, "after 1 of 2 sockets"},
		{"metadata too long", func(c *net.UnixConn) {
			send(c, number(1))
			send(c, plain(2), held[0])
		}, "metadata beyond"},
		{"metadata without end", func(c *net.UnixConn) {
			send(c, number(1))
			for _, err := c.Write(plain(1000)); err == nil; {
				_, err = c.Write(plain(1000))
			}
		}, "metadata beyond"},
		{"not a socket", func(c *net.UnixConn) {
			send(c, number(3))
			send(c, plain(3), held[0], notSocket, held[1])
		}, "not a socket"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if soft, _, err := sys.NofileLimit(); err == nil && strings.HasPrefix(tc.name, "more than the limit") && soft > 65536 {
				t.Skip("the limit on descriptors is beyond what a peer may announce")
			}
			before := openSockets(t)
			c := peer(t, func(c *net.UnixConn) {
				readRequest(c)
				tc.script(c)
			})
			got, err := getsocks.FetchConn(patient(t), c)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one that says %q", err, tc.want)
			}
			if got != nil {
				t.Errorf("got %d sockets beside the error", len(got))
			}
			if (tc.name == "nothing") != errors.Is(err, getsocks.ErrNothing) {
				t.Errorf("errors.Is(%v, ErrNothing) is wrong", err)
			}
			c.Close()
			waitFor(t, "the peer's end to close", func() bool { return openSockets(t) <= before })
		})
	}
}

func TestFetchAcknowledgesWhatCameBefore(t *testing.T) {
	held := listeners(t, 3)
	acks := make(chan uint32, 3)
	c := peer(t, func(c *net.UnixConn) {
		defer close(acks)
		readRequest(c)
		send(c, number(3))
		for i := 0; i < 3; i += 2 {
			n := min(2, 3-i)
			send(c, plain(n), held[i:i+n]...)
			ack, err := readAck(c)
			if err != nil {
				return
			}
			acks <- ack
		}
	})
	got, err := getsocks.FetchConn(patient(t), c)
	if err != nil {
		t.Fatal(err)
	}
	getsocks.CloseAll(got)
	var values []uint32
	for a := range acks {
		values = append(values, a)
	}
	if diff := cmp.Diff([]uint32{0, 2}, values); diff != "" {
		t.Errorf("acknowledgements (-want +got):\n%s", diff)
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	held := listeners(t, 2)
	for _, tc := range []struct {
		name   string
		script func(c *net.UnixConn)
	}{
		{"silent from the start", func(*net.UnixConn) {}},
		{"silent in the count", func(c *net.UnixConn) { send(c, number(2)[:3]) }},
		{"silent in the middle", func(c *net.UnixConn) {
			send(c, number(2))
			send(c, plain(1), held[0])
		}},
		{"silent in the metadata", func(c *net.UnixConn) {
			send(c, number(2))
			send(c, plain(2)[:8], held...)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			before := openSockets(t)
			hold := make(chan struct{})
			c := peer(t, func(c *net.UnixConn) {
				readRequest(c)
				tc.script(c)
				<-hold
			})
			defer close(hold)
			got, err := getsocks.FetchConn(ctx, c)
			if !errors.Is(err, context.DeadlineExceeded) || got != nil {
				t.Errorf("got %v sockets and error %v, want the context's error", got, err)
			}
			if n := openSockets(t); n != before+2 {
				t.Errorf("%d sockets open, want the pair and the %d from before", n, before)
			}
		})
	}
}

// TestFetchLeavesFlagsAlone: the descriptors share their flags with the process that serves on them.
func TestFetchLeavesFlagsAlone(t *testing.T) {
	held := listeners(t, 2)
	if err := sys.SetNonblock(held[1].Num(), true); err != nil {
		t.Fatal(err)
	}
	c := peer(t, func(c *net.UnixConn) {
		readRequest(c)
		send(c, number(2))
		send(c, plain(2), held...)
		readAck(c)
	})
	got, err := getsocks.FetchConn(patient(t), c)
	if err != nil {
		t.Fatal(err)
	}
	defer getsocks.CloseAll(got)
	for i, want := range []bool{false, true} {
		for _, fd := range []*sys.FD{held[i], got[i].FD} {
			if on, err := sys.Nonblock(fd.Num()); err != nil || on != want {
				t.Errorf("socket %d: O_NONBLOCK is %v (%v), want %v", i, on, err, want)
			}
		}
	}
	info, err := os.ReadFile("/proc/self/fdinfo/" + string(text("%d", got[0].FD.Num())))
	if err != nil || !bytes.Contains(info, []byte("flags:\t02000002")) {
		t.Errorf("the received descriptor is not close-on-exec: %s (%v)", info, err)
	}
}

// TestFetchAtDescriptorLimit runs itself again with a limit of 40 descriptors, and is sent 30 when
// at least 16 are in use. (More than 40 could not be sent: the limit holds for what is in flight.)
func TestFetchAtDescriptorLimit(t *testing.T) {
	if os.Getenv("GETSOCKS_TEST_LIMITED") == "" {
		cmd := exec.Command("/bin/sh", "-c", `ulimit -n 40 && exec "$0" -test.run='^TestFetchAtDescriptorLimit$' -test.v -test.timeout=20s`, os.Args[0])
		cmd.Env = append(os.Environ(), "GETSOCKS_TEST_LIMITED=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	held := listeners(t, 1)
	fds := make([]*sys.FD, 30)
	for i := range fds {
		fds[i] = held[0]
	}
	c := peer(t, func(c *net.UnixConn) {
		readRequest(c)
		send(c, number(39))
		send(c, plain(30), fds...)
		readAck(c)
	})
	for range 16 {
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	before := openSockets(t)
	got, err := getsocks.FetchConn(patient(t), c)
	if err == nil || !errors.Is(err, sys.ErrTruncated) || !strings.Contains(err.Error(), "limit on open descriptors") || got != nil {
		t.Errorf("got %d sockets and error %v", len(got), err)
	}
	if n := openSockets(t); n > before {
		t.Errorf("%d sockets open, %d before", n, before)
	}
}

func TestFetchNobodyThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.sock")
	if _, err := getsocks.Fetch(patient(t), path); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want one that names the path", err)
	}
	if _, err := getsocks.PID(patient(t), path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want os.ErrNotExist", err)
	}
}

func TestTrimTemp(t *testing.T) {
	for path, want := range map[string]string{
		"/run/haproxy/admin.sock.123.tmp": "/run/haproxy/admin.sock",
		"/run/haproxy/admin.sock":         "/run/haproxy/admin.sock",
		"/run/a.tmp":                      "/run/a.tmp",
		"/run/a..tmp":                     "/run/a..tmp",
		"/run/a.12x.tmp":                  "/run/a.12x.tmp",
		".1.tmp":                          ".1.tmp",
		"@abstract.7.tmp":                 "@abstract",
		"127.0.0.1:80":                    "127.0.0.1:80",
		"":                                "",
	} {
		if got := getsocks.TrimTemp(path); got != want {
			t.Errorf("TrimTemp(%q) = %q, want %q", path, got, want)
		}
	}
}
