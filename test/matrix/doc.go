// Package matrix replaces real servers under load, one after the other, and counts what is lost: with the settings of
// the preset for that server, and once more without what the supervisor adds (no divert, no settling, no wait).
//
// The servers come from Debian's packages (the root file systems "matrix" and "h2o" of test/vm), one from npm and one
// from the Go module proxy; a few are programs of this tree. Each is set up as its preset tells, by "supervisor init",
// or, where there is no preset, with a configuration given here. Ten reloads happen under three classes of clients: new
// connections, connections that send 150 ms late, and kept ones; datagrams and requests that take a second where the
// server has them. Then its application is broken in the ways that the server allows, and for presets in all four: where
// the server has no application, test/worker takes its place. A reload to it must fail without a lost request.
//
// SUPERVISOR_MATRIX chooses: "quick" (the default: one server for each convention, three reloads, broken in one way),
// "all", names, "broken" and names to keep what was measured and only break them, or "table" to write the table again.
// What was measured without a failure is merged into docs/matrix.json, from which docs/matrix.md is generated, unless it
// was quick. A test without tags compares the two.
package matrix
