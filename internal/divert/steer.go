package divert

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
)

// The slots of a pair.
const (
	SlotA = 0
	SlotB = 1
)

var (
	// ErrUnsupported says that sockets of this kind cannot be steered.
	ErrUnsupported = errors.New("cannot be steered")
	// ErrOtherOwner says that the socket belongs to another user: the kernel forms groups of one owner's sockets only.
	ErrOtherOwner = errors.New("belongs to another user")
	// ErrShared says that other sockets have the same address, so that nobody could tell who has which slot.
	ErrShared = errors.New("shares its address with other sockets")
)

// Join makes the partner of the borrowed socket a, a TCP listener or a bound UDP socket: bound to the same address,
// with the same options and backlog and the same O_NONBLOCK. It listens, and the pair is steered to a (slot 0). The
// caller closes b, whose slot is 1.
//
// No connection reaches b. If a was bound with SO_REUSEPORT the program is in force before b joins. If not, Join sets
// the option late, and the kernel takes a program only after b has joined; for these microseconds b drops the SYNs
// that are hashed to it, and such a client connects with its retransmission one second later. A UDP datagram of that
// moment is not dropped but waits in b. Bind with SO_REUSEPORT (ReusePort=yes in a .socket unit) to have neither.
//
// Root can join a socket of any owner, others only their own: [ErrOtherOwner]. On any error a is as it was.
func Join(a int) (b *FD, err error) {
	s, err := sys.Inspect(a)
	if err != nil {
		return nil, fmt.Errorf("join socket: %w", err)
	}
	if b, err = join(a, s); err != nil {
		return nil, fmt.Errorf("join %s %s: %w", s.Network, s.Address, err)
	}
	return b, nil
}

func join(a int, s sys.Socket) (*FD, error) {
	if err := joinable(a, s); err != nil {
		return nil, err
	}
	if !s.ReusePort {
		if err := sys.SetReusePort(a); err != nil {
			return nil, err
		}
	}
	early, err := steerEarly(a)
	if err == nil {
		var b *FD
		if b, err = partner(a, s, early); err == nil {
			if err = second(b.Num(), s); err == nil {
				return b, nil
			}
			b.Close()
		}
	}
	if early {
		err = errors.Join(err, sys.DetachReusePort(a))
	}
	if !s.ReusePort {
		err = errors.Join(err, sys.ClearReusePort(a))
	}
	return nil, err
}

// joinable says why a cannot have a partner.
func joinable(a int, s sys.Socket) error {
	if s.Network != "tcp" && s.Network != "udp" {
		return fmt.Errorf("a %s socket %w", s.Network, ErrUnsupported)
	}
	protocol, err := sys.Protocol(a)
	if err != nil {
		return err
	}
	if protocol != syscall.IPPROTO_TCP && protocol != syscall.IPPROTO_UDP {
		return fmt.Errorf("a socket of IP protocol %d %w", protocol, ErrUnsupported)
	}
	if s.Port == 0 || (s.Network == "tcp" && !s.Listening) {
		return fmt.Errorf("a socket that does not listen %w", ErrUnsupported)
	}
	return alone(s, 0)
}

// second reports [ErrShared] unless b is the second of the group that the borrowed b and the socket a form, since the program
// knows no more than their order. A server may bind a socket for each of its peers to the address, and connect it, as
// HAProxy does for QUIC: beside one that did before b came, b is not second, or in no group with a. One that is bound and
// connected afterwards changes nothing.
func second(b int, a sys.Socket) error {
	if a.Network != "udp" {
		return nil
	}
	inode, err := sys.Inode(b)
	if err != nil {
		return err
	}
	return alone(a, inode)
}

// alone reports [ErrShared] if sockets other than s and partner have its address, and refuses a socket of another network
// namespace, where a partner cannot be bound.
func alone(s sys.Socket, partner uint64) error {
	states := sys.StateListening
	if s.Network == "udp" {
		states = sys.StateBound | sys.StateConnected
	}
	self, others, err := sameAddress(s, states)
	if errors.Is(err, sys.ErrNoDiag) {
		if s.Network == "tcp" {
			return nil
		}
		return fmt.Errorf("a UDP socket %w by a kernel that does not list them (CONFIG_INET_UDP_DIAG)", ErrUnsupported)
	}
	if err != nil {
		return err
	}
	for _, d := range others {
		if d.Inode != partner && (d.UID == self.UID || d.Peer == 0) {
			return fmt.Errorf("socket %w (inode %d)", ErrShared, d.Inode)
		}
	}
	return nil
}

// sameAddress finds s and the other sockets with its address in the kernel's list.
func sameAddress(s sys.Socket, states sys.SocketState) (self sys.DiagSocket, others []sys.DiagSocket, err error) {
	var all []sys.DiagSocket
	err = sys.DiagInet(s.Network == "udp", strings.Contains(s.Host, ":"), uint16(s.Port), states, func(d sys.DiagSocket) {
		all = append(all, d)
		if d.Inode == s.Inode {
			self = d
		}
	})
	if err == nil && self.Inode == 0 {
		err = fmt.Errorf("a socket of another network namespace %w", ErrUnsupported)
	}
	others = slices.DeleteFunc(all, func(d sys.DiagSocket) bool {
		return d.Inode == s.Inode || d.Addr != self.Addr || d.Interface != self.Interface
	})
	return self, others, err
}

// steerEarly attaches the program to a group of a alone. It reports false for a socket that got SO_REUSEPORT late and
// has no group yet.
func steerEarly(a int) (bool, error) {
	err := sys.AttachReusePortIndex(a, SlotA)
	if errors.Is(err, syscall.EINVAL) {
		return false, nil
	}
	return err == nil, err
}

// partner makes b. Without a program in force it closes the window in which b would get connections.
func partner(a int, s sys.Socket, early bool) (b *FD, err error) {
	if b, err = sys.Twin(a); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	if err := shareOwner(a, b.Num()); err != nil {
		return nil, err
	}
	hold := !early && s.Network == "tcp"
	if hold {
		if err := sys.DropIncoming(b.Num()); err != nil {
			return nil, err
		}
	}
	if err := sys.BindAs(b.Num(), a); err != nil {
		return nil, err
	}
	if s.Network == "tcp" {
		_, backlog, err := sys.Backlog(a)
		if err != nil {
			return nil, err
		}
		if err := sys.Listen(b.Num(), backlog); err != nil {
			return nil, err
		}
	}
	if !early {
		if err := sys.AttachReusePortIndex(a, SlotA); err != nil {
			return nil, err
		}
	}
	if hold {
		if err := sys.KeepIncoming(b.Num()); err != nil {
			return nil, err
		}
	}
	return b, sys.SetNonblock(b.Num(), s.Nonblock)
}

// shareOwner gives b to the owner of a, where we may.
func shareOwner(a, b int) error {
	want, err := sys.SocketOwner(a)
	if err != nil {
		return err
	}
	have, err := sys.SocketOwner(b)
	if err != nil || have == want {
		return err
	}
	if err := sys.SetSocketOwner(b, want); err != nil {
		return fmt.Errorf("socket %w: its owner has uid %d, this process uid %d (leave its .socket unit out, and let the "+
			"supervisor bind it: listen = … in [[socket]])", ErrOtherOwner, want, have)
	}
	return nil
}

// Steer gives all new connections or datagrams of the pair to slot. fd is a borrowed descriptor of either socket. When
// it returns, no new SYN or datagram reaches the other slot.
func Steer(fd, slot int) error {
	if slot != SlotA && slot != SlotB {
		return fmt.Errorf("steer: no slot %d", slot)
	}
	err := sys.AttachReusePortIndex(fd, uint32(slot))
	if errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("steer to slot %d: the socket is not half of a pair: %w", slot, err)
	}
	if err != nil {
		return fmt.Errorf("steer to slot %d: %w", slot, err)
	}
	return nil
}

// Hide keeps what arrives from now on from the borrowed TCP listener or UDP socket fd, for all who have it open; what has
// arrived they can still take. It finds the other socket of its address, and where there is none it is refused. place is
// that of fd in its SO_REUSEPORT group, if it is in one, and partner the inode of the half with which it was a pair, or 0:
// that one is closed here, and the other took its place. There is no way back.
//
// Of a TCP listener in a group with several others a part of the SYNs is dropped, and sent again by its clients a second
// later: the kernel still finds it there.
func Hide(fd, place int, partner uint64) error {
	s, err := sys.Inspect(fd)
	if err != nil {
		return err
	}
	if s.Network == "udp" {
		return sys.HideDatagrams(fd)
	}
	group, err := sharing(s)
	if err == nil && len(group) == 1 && group[0].Inode != partner && Steer(fd, 1-place) == nil {
		return nil
	}
	return sys.HideListener(fd)
}

// Replaced tells whether the address of a TCP listener has another one of the same owner, beside its partner, if it is a pair.
func Replaced(s sys.Socket, partner uint64) bool {
	group, err := sharing(s)
	return err == nil && slices.ContainsFunc(group, func(d sys.DiagSocket) bool { return d.Inode != partner })
}

// sharing lists the other listeners of the address that have the same owner.
func sharing(s sys.Socket) (others []sys.DiagSocket, err error) {
	self, others, err := sameAddress(s, sys.StateListening)
	return slices.DeleteFunc(others, func(d sys.DiagSocket) bool { return d.UID != self.UID }), err
}

// Queue returns how many connections wait in the accept queue of the borrowed listener fd, and how many may.
func Queue(fd int) (used, limit int, err error) {
	s, err := sys.Inspect(fd)
	if err != nil {
		return 0, 0, err
	}
	switch s.Network {
	case "tcp":
		return sys.Backlog(fd)
	case "unix", "unixpacket":
		return sys.UnixBacklog(s.Inode)
	}
	return 0, 0, fmt.Errorf("queue of a %s socket is not known", s.Network)
}

// quietPoll is how often Quiet looks.
const quietPoll = 5 * time.Millisecond

// Quiet waits until nothing has waited in the queue of the borrowed socket fd, a listener or a datagram socket, for
// the whole of settle: whoever accepts from it has taken everything, late handshakes included.
func Quiet(ctx context.Context, fd int, settle time.Duration) error {
	tick := time.NewTicker(quietPoll)
	defer tick.Stop()
	since := time.Now()
	for {
		waiting, err := sys.Readable(fd)
		if err != nil {
			return err
		}
		now := time.Now()
		if waiting {
			since = now
		} else if now.Sub(since) >= settle {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for an empty queue: %w", ctx.Err())
		case <-tick.C:
		}
	}
}
