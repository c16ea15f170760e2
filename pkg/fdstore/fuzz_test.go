package fdstore_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/fdstore"
)

// FuzzReadBundle reads what a hostile or damaged FD store may hold: manifest is the text of the first message's memfd,
// and script is a series of messages, each a byte with the number of descriptors (modulo 5) and one with the length of
// the payload that follows.
func FuzzReadBundle(f *testing.F) {
	const first, more = "supervisor bundle 1", "+"
	message := func(fds int, text string) string { return string([]byte{byte(fds), byte(len(text))}) + text }
	f.Add(`[]`, message(1, first))
	f.Add(`[{"name":"a"},{"name":"b","meta":"m"}]`, message(1, first)+message(2, more))
	f.Add(`[{"name":"a"},{"name":"b"}]`, message(1, first)+message(1, more)+message(1, more)+message(1, more))
	f.Add(`[{"name":"a"},{"name":"b"}]`, message(1, first)+message(4, more))
	f.Add(`[{"name":"a"}]`, message(1, first)+message(0, more))
	f.Add(`[{"name":"a"}]`, message(2, first)+message(1, more))
	f.Add(`[{"name":"a"}]`, message(1, first)+message(1, "++"))
	f.Add(`[{"name":"a"}]`, message(1, first))
	f.Add(`{"name":1}`, message(1, first))
	f.Add(`null`, message(0, first))
	f.Fuzz(func(t *testing.T, manifest, script string) {
		if len(manifest) > 4096 || len(script) > 4096 {
			return
		}
		text, err := sys.SealedMemfd("manifest", []byte(manifest))
		if err != nil {
			t.Fatal(err)
		}
		defer text.Close()
		r, w, err := sys.Socketpair(syscall.SOCK_SEQPACKET)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		sent := 0
		for len(script) >= 2 {
			fds := make([]int, script[0]%5)
			for i := range fds {
				fds[i] = text.Num()
			}
			n := min(int(script[1]), len(script)-2)
			if err := sys.SendRights(w, []byte(script[2:2+n]), fds); err != nil {
				break
			}
			sent += len(fds)
			script = script[2+n:]
		}
		w.Close()
		before := openMemfds(t)
		got, err := fdstore.ReadBundle(r)
		if err != nil && got != nil || len(got) > sent {
			t.Errorf("%d descriptors of %d sent, and the error %v", len(got), sent, err)
		}
		if n := openMemfds(t); n != before+len(got) {
			t.Errorf("%d memfds are open beside %d before and %d that were read", n, before, len(got))
		}
		// Nothing was taken out, and it can be made again.
		again, againErr := fdstore.ReadBundle(r)
		if len(again) != len(got) || (err == nil) != (againErr == nil) {
			t.Errorf("read %d (%v), then %d (%v)", len(got), err, len(again), againErr)
		}
		if err == nil {
			remake(t, got)
		}
		for _, e := range append(got, again...) {
			e.FD.Close()
		}
		if n := openMemfds(t); n != before {
			t.Errorf("%d memfds are open, %d before", n, before)
		}
	})
}

// remake bundles what was read, and compares what comes out.
func remake(t *testing.T, entries []fdstore.Named) {
	t.Helper()
	bundle, err := fdstore.NewBundle(entries)
	if err != nil {
		t.Fatal(err)
	}
	defer bundle.Close()
	same, err := fdstore.ReadBundle(bundle)
	if err != nil || len(same) != len(entries) {
		t.Errorf("remade, %d entries came back of %d: %v", len(same), len(entries), err)
	}
	for i, e := range same {
		if e.Name != entries[i].Name || e.Meta != entries[i].Meta {
			t.Errorf("%q %q came back as %q %q", entries[i].Name, entries[i].Meta, e.Name, e.Meta)
		}
		e.FD.Close()
	}
}

func openMemfds(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); err == nil && strings.HasPrefix(target, "/memfd:") {
			n++
		}
	}
	return n
}
