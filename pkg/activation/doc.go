// Package activation is socket activation in both directions: [Take] receives
// the descriptors that systemd (or an earlier execve of this program) passed to
// this process, checked; [Plan] and [Shim] pass sockets on to a worker in the
// conventions that servers know.
//
// Invariants of the receiving side: a descriptor that was not passed is never
// touched, whatever the environment says (the Go runtime holds low descriptors
// of its own); a descriptor that was passed is never lost because something else
// is wrong; nothing of what was received stays in the environment; no flag but
// FD_CLOEXEC is changed.
//
// Of the passing side: sockets stay raw descriptors, so that O_NONBLOCK, which
// all generations share, stays as it is; what only the child can know
// ($LISTEN_PID) is set in the child, by the exec shim.
//
// See sd_listen_fds(3), systemd.exec(5). LISTEN_FDNAMES needs systemd 227,
// FDSTORE 254, LISTEN_PIDFDID 259.
package activation
