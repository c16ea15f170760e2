// Package probe reads from /proc what other processes do with sockets: who
// waits on them, who holds them, and which of a process's own are listeners.
// It needs no help from the process and is stricter than READY=1: it sees
// whether the kernel would wake somebody for a new connection.
//
// A process waits on a socket when
//   - the socket is in one of its epoll sets with EPOLLIN armed
//     (proc_pid_fdinfo(5): "tfd", "events", "ino"), or
//   - one of its threads sleeps in accept, recv or read on it, or in poll or
//     select with it in the set (/proc/PID/task/TID/syscall, the sets from
//     /proc/PID/mem).
//
// Not seen: a process that waits with io_uring, one that wakes up from time to
// time to call a non-blocking accept, threads that are busy at the moment (ask
// again), and 32-bit programs that poll on a 64-bit kernel.
//
// # Rights
//
// Descriptors and epoll sets can be read by the same user id, unless the
// process changed its user or is otherwise not dumpable, and with
// CAP_SYS_PTRACE. Threads need the right to attach as a debugger in addition:
// kernel.yama.ptrace_scope=1 confines that to descendants, 2 to CAP_SYS_PTRACE.
// Linux 5.10 or newer on amd64, and the architectures with the generic system
// call numbers (arm64, riscv64, loong64); on others threads cannot be looked
// into, which is an error where a socket is not in an epoll set.
package probe
