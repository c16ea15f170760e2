// Package vm runs scenarios on real systemd: containers booted by
// systemd-nspawn with Debian's systemd 252, 257 and the newest, and one virtual
// machine with a kernel of its own.
//
// A root file system is built on the first use and cached (roots/build); a
// container writes to an overlay in memory that ends with it, so nothing has to
// be cleaned up and no test sees what another one left. One container is booted
// per suite and shared by all scenarios, each of which uses service names and
// ports of its own. The container has a network of its own; the load enters it
// with [Machine.Dial] from the outside of the service and of the root.
//
// What a container cannot show: cgroup controllers, BPF LSM, the kernel itself.
// Needs root, and systemd-nspawn on the host.
package vm
