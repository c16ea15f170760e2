package handoff_test

import (
	"context"
	"strings"
	"testing"

	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/probe"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
)

// drain drains the generation, with traffic going to slot to, and returns the steps. It calls diverted after the first.
func (h *host) drain(g *handoff.Generation, to int, diverted func()) map[string]handoff.Timed {
	h.t.Helper()
	steps := map[string]handoff.Timed{}
	d := &handoff.Drain{Host: h, Gen: g, To: to, Changed: func() {}, OnStep: func(t handoff.Timed) {
		if steps[t.Name] = t; t.Name == "divert" {
			diverted()
		}
	}}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	d.Run(ctx)
	if ctx.Err() != nil {
		h.t.Error("the drain does not end")
	}
	h.Discard(g, steps["signal"].Note)
	return steps
}

// A socket that cannot be steered after all does not keep the others from being steered: it is fenced.
func TestOneSocketNotSteered(t *testing.T) {
	h := newHost(t)
	h.configure("", strings.Replace(plain, "divert = \"none\"", "settle = \"20ms\"", 1))
	odd := h.listener(sockets.Unit, "odd", 82) // first in the order
	other, err := sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: h.addr, Port: 83})
	if err != nil {
		t.Fatal(err)
	}
	h.held.Pair(odd, other) // no group in the kernel
	h.must()
	old := h.serving
	ho, err := h.handoff()
	if err != nil {
		t.Fatal(err)
	}
	steps := h.drain(old, ho.New.Slot, func() {})
	if s := steps["divert"]; !strings.HasPrefix(s.Note, "1 steered, 1 fenced") || s.Error != "" || old.Divert != "steer+fence" {
		t.Errorf("divert: %+v, %s", s, old.Divert)
	}
	if !h.noted("socket odd") {
		t.Errorf("notes: %q", h.notes)
	}
	if s := h.held.Get("http"); s.Steered != ho.New.Slot {
		t.Errorf("socket http is steered to slot %d", s.Steered)
	}
}

// A generation of the second slot is fenced from its own half of a pair.
func TestFenceOfSecondSlot(t *testing.T) {
	h := newHost(t)
	h.configure("", strings.Replace(plain, "divert = \"none\"", "settle = \"20ms\"", 1))
	h.must()
	h.configure("", strings.Replace(plain, "divert = \"none\"", "divert = \"fence\"\nsettle = \"20ms\"", 1))
	h.must()
	old := h.serving
	inode, err := h.held.Get("http").Inode(1)
	if err != nil || old.Slot != 1 {
		t.Fatalf("slot %d, %v", old.Slot, err)
	}
	waits := func() bool {
		found, err := probe.Listening([]int{old.PID()}, []uint64{inode})
		if err != nil {
			t.Error(err)
		}
		return len(found) > 0
	}
	if _, err := h.handoff(); err != nil {
		t.Fatal(err)
	}
	if !waits() {
		t.Error("it does not accept before")
	}
	h.drain(old, 0, func() {
		if waits() {
			t.Error("it still accepts on its half")
		}
	})
}
