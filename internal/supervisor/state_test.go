package supervisor_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/8265a91a/supervisor/internal/supervisor"
	"github.com/8265a91a/supervisor/internal/sys"
)

func TestDecodeStateErrors(t *testing.T) {
	t.Parallel()
	for text, word := range map[string]string{
		``:                              "does not parse",
		`[]`:                            "does not parse",
		`{"version":"1"}`:               "does not parse",
		`{}`:                            "format 0",
		`{"version":-1}`:                "format -1",
		`{"version":2,"name":"x"}`:      "format 2",
		`{"version":1,"name":"y"}`:      `service "y"`,
		`{"version":1,"name":"x","s`:    "does not parse",
		`{"version":1,"sockets":"x"}`:   "does not parse",
		`{"version":1,"configs":[1,2]}`: "does not parse",
	} {
		if _, err := supervisor.DecodeState([]byte(text), "x"); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%q: %v, want %q", text, err, word)
		}
	}
}

// Whatever is in the FD store, reading it neither panics nor changes it.
func FuzzDecodeState(f *testing.F) {
	f.Add([]byte(`{"version":1,"name":"x"}`))
	f.Add([]byte(`{"version":1,"name":"x","sequence":7,"generation":3,"slot":1,"serving":3,"since":"2026-01-02T03:04:05Z",` +
		`"generations":[{"n":3,"slot":1,"state":"serving","since":"2026-01-02T03:04:05Z","pid":9,"start_time":77,"config":"abc","deadline":5}],` +
		`"sockets":[{"name":"http","origin":"bound","cookie":12,"fdname":"http","nonblock":true}],` +
		`"handoffs":[{"id":1,"kind":"reload","steps":[{"name":"check","took":1}]}],"configs":{"abc":"[worker]\ncommand = [\"/bin/true\"]\n"}}`))
	f.Add([]byte(`{"version":1,"name":"x","generations":[null,{}],"sockets":[null],"handoffs":[null],"configs":null}`))
	f.Add([]byte(`{"version":99}`))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := supervisor.DecodeState(data, "x")
		if err != nil {
			return
		}
		second, err := supervisor.DecodeState(first, "x")
		if err != nil || string(first) != string(second) {
			t.Error(fmt.Errorf("written and read again: %w\n%s\n%s", err, first, second))
		}
	})
}

// Every entry of the FD store is placed once or refused, whatever its name; a pushed one keeps the worker's name for it.
func FuzzEntryNames(f *testing.F) {
	f.Add("supervisor.state", "supervisor.worker.1", "supervisor.worker.01")
	f.Add("supervisor.notify.-1", "supervisor.bind.99999999999999999999", "supervisor.bundle.1")
	f.Add("supervisor.socket.", "supervisor.alternate.http", "supervisor.nothing")
	f.Add("supervisor.pushed.a.2", "supervisor.pushed-2.a", "supervisor.pushed-1.a")
	f.Add("supervisor.pushed-.a", "supervisor.pushed-2.", "supervisor.pushed-02.3.a")
	null, err := sys.OpenNull()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { null.Close() })
	f.Fuzz(func(t *testing.T, a, b, c string) {
		refused, err := supervisor.PlaceEntries([]string{a, b, c}, null)
		if err != nil {
			t.Errorf("%q: %v", []string{a, b, c}, err)
		}
		for _, entry := range []string{a, b, c} {
			name, again, err := supervisor.ReadPushed(entry)
			if err != nil || !strings.HasPrefix(entry, "supervisor.pushed") {
				continue
			}
			if second, _, err := supervisor.ReadPushed(again); err != nil || second != name || !strings.HasSuffix(entry, "."+name) || slices.Contains(refused, entry) {
				t.Errorf("%q is read as %q, written as %q, read as %q: %v", entry, name, again, second, err)
			}
		}
	})
}

// A state that parses but tells nonsense does no harm.
func TestNonsenseState(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(map[string]any){
		"null everywhere": func(st map[string]any) {
			st["generations"], st["sockets"], st["handoffs"], st["configs"] = []any{nil}, []any{nil}, []any{nil}, nil
		},
		"slot 7": func(st map[string]any) {
			st["slot"] = 7
			for _, g := range st["generations"].([]any) {
				g.(map[string]any)["slot"] = 7
			}
		},
		"unknown state": func(st map[string]any) {
			for _, g := range st["generations"].([]any) {
				g.(map[string]any)["state"] = "flying"
			}
		},
		"two serve": func(st map[string]any) {
			gs := st["generations"].([]any)
			st["generations"] = append(gs, gs[0])
		},
		"numbers": func(st map[string]any) {
			st["generation"], st["serving"], st["bundle"] = -5, 1<<40, -1
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, "")
			s.start()
			s.settled()
			s.kill()
			s.barrier()
			s.edit(change)
			s.start()
			load := s.load()
			s.reload()
			s.reload()
			s.settled()
			load.end()
			s.stop()
		})
	}
}
