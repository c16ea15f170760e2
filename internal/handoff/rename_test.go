package handoff_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/handoff"
)

const two = "[[socket]]\nname = \"a\"\nlisten = \"ADDR:80\"\n[[socket]]\nname = \"b\"\nlisten = \"ADDR:81\"\n"

// names are the names that workers see, by socket.
func (h *host) names() map[uint64]string {
	names := map[uint64]string{}
	for _, s := range h.held.Ordered(nil) {
		names[s.Cookie] = s.FDName
	}
	return names
}

// A [[socket]] with the address of one that was bound under another name is that socket, steered or not, and two may
// exchange their names.
func TestRename(t *testing.T) {
	for _, drain := range []string{"[drain]\ndivert = \"none\"\n", "[drain]\ndivert = \"auto\"\n"} {
		h := newHost(t)
		h.configure("", drain+two)
		h.must()
		want := h.names()
		a, b := h.held.Get("a").Cookie, h.held.Get("b").Cookie
		for _, names := range [][2]string{{"web", "b"}, {"b", "web"}, {"a", "b"}} {
			h.configure("-exit=3", drain+strings.NewReplacer(`"a"`, `"`+names[0]+`"`, `"b"`, `"`+names[1]+`"`).Replace(two))
			before := h.picture()
			if _, err := h.handoff(); err == nil {
				t.Fatal("it did not fail")
			}
			if diff := cmp.Diff(before, h.picture()) + cmp.Diff(want, h.names()); diff != "" {
				t.Error("after a failure: ", diff)
			}
			h.configure("", drain+strings.NewReplacer(`"a"`, `"`+names[0]+`"`, `"b"`, `"`+names[1]+`"`).Replace(two))
			h.must()
			want = map[uint64]string{a: names[0], b: names[1]}
			if diff := cmp.Diff(want, h.names()); diff != "" {
				t.Errorf("renamed to %q: %s", names, diff)
			}
		}
		if len(h.notes) > 0 {
			t.Errorf("notes: %q", h.notes)
		}
	}
}

// With other options it is another socket, for which there is no room beside the first.
func TestRenameWithOtherOptions(t *testing.T) {
	h := newHost(t)
	h.configure("", "[drain]\ndivert = \"auto\"\n"+two)
	h.must()
	before := h.picture()
	h.configure("", "[drain]\ndivert = \"auto\"\n"+strings.Replace(two, `"a"`, "\"web\"\nfree_bind = true", 1))
	_, err := h.handoff()
	f, _ := err.(*handoff.Failure)
	if f == nil || f.Step != "fetch" || !strings.Contains(f.Error(), `the held socket "a"`) {
		t.Errorf("%v", err)
	}
	if diff := cmp.Diff(before, h.picture()); diff != "" {
		t.Error(diff)
	}
}
