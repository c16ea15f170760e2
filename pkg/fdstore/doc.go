// Package fdstore keeps descriptors in systemd's file descriptor store, where
// they survive the end of the process that put them there, and sends the other
// messages of sd_notify(3).
//
// What it guards against, because systemd says nothing in these cases: a name
// that systemd would replace by "stored", a message that is too long, a store
// that is full, a socket that is stored already (it would keep its old name),
// several descriptors in one message (they would come back in any order).
// systemd acknowledges nothing; [Store.Barrier] returns when it has worked
// through everything sent before.
//
// systemd compares each new descriptor with all stored ones, so its store is
// for dozens. A bundle ([NewBundle]) is one entry that holds thousands.
//
// See sd_notify(3), sd_pid_notify_with_fds(3), systemd.service(5)
// FileDescriptorStoreMax=. FDSTORE=1 needs systemd 219, FDNAME= 227,
// FDSTOREREMOVE=1 236, FDPOLL=0 and BARRIER=1 246; Linux 5.10.
package fdstore
