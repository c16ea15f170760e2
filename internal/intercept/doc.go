// Package intercept answers a worker's own bind(2) with a socket that the
// supervisor holds: the convention for servers that know none.
//
// In the child, [Install] puts a seccomp filter in place that reports bind(2)
// and nothing else, and sends the notification descriptor to the supervisor;
// then the child becomes the server by execve. In the supervisor, [Serve] looks
// at each call: is the address one of ours, our socket takes the place of the
// server's under the same descriptor number, and bind returns 0; else the kernel
// carries it out. All other system calls cost what they did.
//
// Limits: options that the server set on its own socket before bind are lost
// (but close-on-exec, which is copied, and O_NONBLOCK, which the supervisor is
// told); an AF_INET6 socket may become an AF_INET one; unix sockets and 32-bit programs on a 64-bit kernel are
// not seen; io_uring's bind (Linux 6.11) is not either; one such filter per
// process chain; a signal that arrives before the supervisor has taken the call
// up, and whose handler does not restart system calls, makes bind fail with
// EINTR; without CAP_SYS_ADMIN no_new_privs is set, so that set-user-ID helpers
// of the worker stop working. While nobody serves the descriptor bind blocks,
// and once all its holders have closed it, bind fails with ENOSYS: it belongs
// into the FD store. A call that was received and not answered when the
// supervisor is killed is seen by nobody any more and blocks for ever: it is
// answered at once, and nothing is received before the descriptor is stored.
//
// Reading the caller's memory and socket needs the right to ptrace it: the same
// user, or CAP_SYS_PTRACE, and with Yama's ptrace_scope=1 that the worker
// descends from the supervisor. Where it is missing the call is let through.
//
// See seccomp_unotify(2). Linux 5.9; 5.19 closes a race with signals, which is
// handled here for older kernels. amd64 and arm64.
package intercept
