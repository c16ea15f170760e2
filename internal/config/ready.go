package config

import (
	"slices"
	"time"
)

func (t *table) ready(r *Ready) {
	*r = Ready{When: []string{ReadyListening}, Timeout: 30 * time.Second}
	t.choices("when", &r.When, ReadyListening, ReadyNotify, ReadyHAProxy, ReadyCommand, ReadyFile, ReadyDelay)
	t.duration("stable", &r.Stable, 0)
	t.duration("timeout", &r.Timeout, positive)
	t.text("socket", &r.Socket, checkSocketPath)
	t.command("command", &r.Command)
	t.text("file", &r.File, checkPath)
	t.duration("delay", &r.Delay, positive)
	needs := []struct{ condition, key, hint string }{
		{ReadyHAProxy, "socket", `socket = "/run/…/admin.sock", usually the same as handoff.getsocks`},
		{ReadyCommand, "command", `command = ["/usr/bin/curl", "…"]`},
		{ReadyFile, "file", `file = "${dir}/ready"`},
		{ReadyDelay, "delay", `delay = "2s"`},
	}
	for _, n := range needs {
		if slices.Contains(r.When, n.condition) && !t.has(n.key) {
			t.fail("when", bad(n.hint, "%q needs ready.%s", n.condition, n.key))
		}
	}
	if slices.Contains(r.When, ReadyDelay) && r.Delay >= r.Timeout {
		t.fail("delay", bad("", "%v does not fit into ready.timeout of %v", r.Delay, r.Timeout))
	}
}
