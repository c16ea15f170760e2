// Package control is the conversation between the command line and the daemon
// of one service, over the unix socket DIR/NAME/control.sock.
//
// A connection carries one request, a line of JSON ([Request]), and its answer,
// lines of JSON ([Event]) of which the last is of type result, status, fds or
// error. Both sides send their version in "v". A newer minor thing is an
// unknown key, which is ignored; another version is refused.
//
// Only root and the service's own user may ask (mode 0600 and SO_PEERCRED). The
// daemon never waits for a client: requests are bounded in size and time,
// events for one who does not read are dropped, and a client that leaves does
// not stop what it began.
//
// What `supervisor status --json` and `supervisor fds --json` print is [Status]
// and [FDs] as they come over the socket.
package control
