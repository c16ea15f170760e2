package matrix

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/8265a91a/supervisor/test/load"
)

// row is what docs/matrix.json holds for each server.
type row struct {
	Name, Title, Version string
	Preset               string `json:",omitempty"`
	// Source is the Debian, npm or Go package that the server is from, empty for a program of this tree.
	Source            string `json:",omitempty"`
	Convention, Ready string
	Drain, Order      string
	Note              string    `json:",omitempty"`
	With              *measured `json:",omitempty"`
	Without           *measured `json:",omitempty"`
	Broken            []broken  `json:",omitempty"`
}

// measured is one run of reloads.
type measured struct {
	Reloads int
	// Divert is what was used.
	Divert  string
	Classes map[load.Class]counted
	// ReloadMS is the median time until the reload's result was known, ReadyMS the part of it until the newcomer was
	// ready, DrainedMS the median until the old generation was gone.
	ReloadMS, ReadyMS, DrainedMS float64
}

type counted struct {
	Requests, Failed int64
	Idle             int64  `json:",omitempty"`
	Kinds            string `json:",omitempty"`
}

type broken struct {
	Kind             string `json:",omitempty"`
	What, Message    string
	Requests, Failed int64
}

const (
	dataFile  = "../../docs/matrix.json"
	tableFile = "../../docs/matrix.md"
)

func rows(t *testing.T) (list []*row) {
	t.Helper()
	data, err := os.ReadFile(dataFile)
	if err == nil && len(data) > 0 {
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// The kinds of broken workers. Every preset is tried with each.
const (
	exits   = "exits"
	hangs   = "hangs"
	dies    = "ready, then dies"
	ignores = "ignores the socket"
)

var allKinds = []string{exits, hangs, dies, ignores}
