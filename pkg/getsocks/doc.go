// Package getsocks speaks _getsocks, the protocol by which HAProxy hands its
// listening sockets to its successor: as a client of a running HAProxy
// ([Fetch]), and as the server that a starting one asks, over a path
// ([Server], haproxy -x PATH) or an inherited socket pair ([ServePair],
// haproxy -x sockpair@N).
//
// The exchange, on a connected unix stream socket:
//
//	client: "_getsocks\n"
//	server: the number of sockets, a C int in host byte order
//	server: one message: metadata of at most 253 sockets, with their descriptors (SCM_RIGHTS)
//	client: 4 bytes of acknowledgement, their value ignored
//	        ... the last two repeat until all sockets are sent
//
// The metadata of one socket is a byte length and the name of its network
// namespace, a byte length and the name of its interface, and 4 bytes that
// HAProxy ignores since 2.3. The names cannot be read back from a socket, and a
// new HAProxy compares them with its bind lines, so whoever carries the sockets
// carries the names with them.
//
// Invariants: a received descriptor is close-on-exec, is owned by the result or
// closed, and is never touched otherwise: no flag of it changes. A count that
// does not agree with what arrived is an error.
//
// Sources: HAProxy's src/cli.c (_getsocks), src/sock.c (sock_get_old_sockets)
// and src/proto_sockpair.c; unix(7). The client serves HAProxy 1.8 and newer,
// -x PATH needs 1.8, sockpair@ needs 2.6. Linux 5.10 or newer.
package getsocks
