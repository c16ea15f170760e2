// Package worker runs one generation of a supervised server: it starts or
// adopts the main process, knows the whole tree of processes that came from it,
// listens to what they say on NOTIFY_SOCKET, waits until they are ready, and
// brings them to their end.
//
// # Invariants
//
// A process is only ever signalled through a pidfd that was verified to belong
// to it (pid and start time), so a reused pid is never hit. An exit status is
// collected exactly once: by the [Process] that watches the child, or by
// [ReapOrphans] for children that nobody watches. Descriptors given to a child
// are borrowed raw numbers and their flags are not touched.
//
// Everything here survives the supervisor: the worker is the leader of its own
// session, its pidfd and its notify socket can be kept in systemd's FD store,
// and [Adopt], [AdoptNotify], [NewTree] and [Drain] go on from there.
//
// The package logs nothing, reads no configuration and never exits. What is
// noteworthy but no error goes to the callbacks that the caller gives.
//
// # Sources
//
// pidfd_open(2), waitid(2), proc_pid_stat(5), proc_pid_environ(5),
// credentials(7), sd_notify(3), unix(7) (SCM_CREDENTIALS, SCM_RIGHTS).
// Linux 5.10 or newer; the exit status of an adopted process, which another
// process reaps, needs 6.15. systemd is not needed.
package worker
