// Package divert takes new connections away from a generation of a worker, from
// outside and without its help, before the worker is told to stop.
//
// # Steer
//
// Two permanent sockets of one address, A in slot 0 and B in slot 1, form one
// SO_REUSEPORT group. [Join] makes B for A; [Steer] attaches a classic BPF program
// of one instruction that names the slot which gets everything new. It works for
// TCP and UDP, whatever the server does, and needs no privilege.
//
// The kernel's index of a socket in its group is the order in which the sockets
// began to listen (TCP) or were bound (UDP). It belongs to the socket, not to a
// descriptor or a process, and nobody can read it. So the invariants are:
//
//   - A is the socket that was given to Join, B the one that Join returned. Both
//     keep their slots for as long as both are open somewhere: over passing by
//     SCM_RIGHTS, the FD store, the death of any holder, and changes of program.
//   - If one of the two is closed by its last holder, the other has slot 0 from
//     then on and gets everything, whatever the program says. A new partner from
//     Join has slot 1.
//   - Nobody else joins the group. Join refuses an address that other sockets
//     share; a worker that binds the same address with SO_REUSEPORT under the same
//     user id later would break the order.
//
// What a slot had accepted, or had in its queue, when it lost the traffic stays
// with it, and so do handshakes that its SYN began: a generation leaves a slot
// when what [HalfOpen] found is complete, and after [Quiet]. If it cannot, net.ipv4.tcp_migrate_req=1 lets the kernel
// move what waits in the queue of a closed socket to the other one (Linux 5.14).
//
// For TCP only the first packet of a connection is steered. For UDP each datagram
// is, so that a protocol with connections of its own (QUIC, DTLS) loses those which
// the other slot began.
//
// # Fence
//
// [Fence] removes the listeners from the epoll sets of a worker's processes with
// pidfd_getfd and epoll_ctl. It is for epoll servers and the only way for Unix
// sockets. It needs the right to ptrace the worker: the same user id, no stricter
// Yama than 1 and a worker that is our descendant, or CAP_SYS_PTRACE.
//
// # Idle
//
// [Connections] counts what a generation has accepted and still holds, by
// sock_diag(7); [WaitIdle] waits for none.
//
// All sock_diag questions are about the network namespace of the calling thread;
// sockets of other namespaces look idle and unshared. Linux 5.10 or newer.
package divert

import "github.com/8265a91a/supervisor/internal/sys"

// FD is the owning descriptor type.
type FD = sys.FD
