//go:build vm

package matrix

import "slices"

// servers are the rows, in the order of the table. A server keeps its port as long as nothing is put before it.
var servers = slices.Concat(webServers, pythonServers, rubyAndPerl, programs, stores, nameServers, others)
