package supervisor

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"strconv"
	"time"

	"github.com/8265a91a/supervisor/internal/fault"
	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/fdstore"
)

// Names of entries in systemd's FD store. No .socket unit's socket has such a name unless somebody asks for trouble.
const (
	entryPrefix     = "supervisor."
	entryState      = entryPrefix + "state"
	entryStateNext  = entryPrefix + "state.next"
	prefixWorker    = entryPrefix + "worker."
	prefixNotify    = entryPrefix + "notify."
	prefixSocket    = entryPrefix + "socket."
	prefixAlternate = entryPrefix + "alternate."
	prefixFirst     = entryPrefix + "alternate-first." // one that comes first in the kernel's order of the pair
	prefixBundle    = entryPrefix + "bundle."
	prefixPushed    = entryPrefix + "pushed."
	prefixMore      = entryPrefix + "pushed-" // NUMBER.NAME: beyond the first of one name
	prefixBind      = entryPrefix + "bind."
)

// maxSingle is how many entries sockets get of their own. Each new entry is compared with all others by PID 1, which
// serves nobody meanwhile; the rest goes into a bundle.
const maxSingle = 128

// keeper brings systemd's FD store to what is held, by differences: what systemd has already is never sent again.
type keeper struct {
	store *fdstore.Store // nil without systemd
	have  map[string]uint64
	// bundle is the number of the bundle in the store, 0 for none; bundled the identity of what it holds.
	bundle   int
	bundled  uint64
	inBundle map[string]bool
	// limit is FileDescriptorStoreMax=, 0 if unknown.
	limit int

	sequence      uint64
	handoffWanted bool
	lastServed    int
}

// entry is what the store should hold under a name. The identity changes when the descriptor is another one.
type entry struct {
	name     string
	fd       int
	identity uint64
}

func newKeeper(m *manager, limit int) *keeper {
	k := &keeper{store: m.store, have: map[string]uint64{}}
	if k.store != nil {
		if limit == 0 { // a systemd before 254 sets no $FDSTORE
			use, _ := m.askStore(context.Background())
			limit = use.max
		}
		k.setLimit(limit)
	}
	return k
}

// setLimit takes FileDescriptorStoreMax=, unless nobody knows it.
func (k *keeper) setLimit(limit int) {
	if limit > 0 {
		k.store.SetMax(limit)
		k.limit = limit
	}
}

// startAnew forgets what systemd was told. What it still has it does not take a second time.
func (k *keeper) startAnew() {
	k.store.Reset()
	clear(k.have)
	if k.bundle != 0 { // the next one is another descriptor: this one is removed then
		k.have[k.bundleName(k.bundle)] = 0
		k.bundled = 0
	}
}

// known notes an entry that systemd passed at start.
func (k *keeper) known(name string, fd int, identity uint64) {
	k.have[name] = identity
	if k.store != nil {
		k.store.Adopt(name, fd)
	}
}

// Sync implements [handoff.Host]: it returns when systemd has everything that is held.
func (d *Daemon) Sync(ctx context.Context) error {
	var err error
	sync := func(*sockets.Set) { err = d.sync() }
	d.Do(sync)
	if errors.Is(err, fdstore.ErrFull) {
		if use, ok := d.manager.askStore(ctx); ok { // it may have been raised
			d.Do(func(held *sockets.Set) { d.keeper.setLimit(use.max); sync(held) })
		}
	}
	if err != nil || d.keeper.store == nil {
		return err
	}
	return d.verify(ctx)
}

// verify repairs the store if systemd does not hold what it was told to.
func (d *Daemon) verify(ctx context.Context) error {
	use, err := d.askStored(ctx)
	if err != nil {
		return err
	}
	d.Do(func(*sockets.Set) {
		d.keeper.setLimit(use.max)
		if use.count < d.keeper.store.Len() {
			err = d.repair(ctx)
		}
	})
	return err
}

// askStored asks systemd what it holds when it has worked through all messages: it drops what it does not want to store,
// or not any more, without telling. If it does not tell that either, nothing is missing.
func (d *Daemon) askStored(ctx context.Context) (storeUse, error) {
	if err := d.keeper.store.Barrier(ctx); err != nil {
		return storeUse{}, fmt.Errorf("wait until systemd has stored the descriptors: %w", err)
	}
	use, ok := d.manager.askStore(ctx)
	if !ok {
		use.count = d.keeper.store.Len()
	}
	return use, nil
}

// repairTimeout bounds repair, during which nothing else happens.
const repairTimeout = 5 * time.Second

// repair stores everything again if systemd has lost some. It runs on the loop, where nothing changes under the count.
func (d *Daemon) repair(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, repairTimeout)
	defer cancel()
	k := d.keeper
	use, err := d.askStored(ctx)
	if err != nil || use.count >= k.store.Len() {
		return err
	}
	d.Note(handoff.Warning, fmt.Sprintf("systemd holds %d of %d descriptors, FileDescriptorStoreMax= was lowered or its store was emptied: all are stored again", use.count, k.store.Len()))
	k.setLimit(use.max)
	k.startAnew()
	if err := d.sync(); err != nil {
		return err
	}
	if use, err = d.askStored(ctx); err != nil || use.count >= k.store.Len() {
		return err
	}
	return fmt.Errorf("systemd holds %d of %d descriptors: FileDescriptorStoreMax= of the unit is too small", use.count, k.store.Len())
}

// checkStore is verify for when nobody waits.
func (d *Daemon) checkStore() {
	if d.keeper.store == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*repairTimeout)
	defer cancel()
	if err := d.verify(ctx); err != nil {
		d.Note(handoff.Warning, "cannot bring the FD store to what is held: "+err.Error())
	}
}

// saveAgain is the pause before what could not be saved is tried again.
const saveAgain = 5 * time.Second

// save is sync for changes that nobody waits for. It is tried again if systemd did not read: a state that says less than
// the truth costs a worker its life when the next supervisor reads it.
func (d *Daemon) save() {
	err := d.sync()
	if err == nil {
		return
	}
	d.Note(handoff.Warning, "cannot save to the FD store: "+err.Error())
	if d.unsaved == nil && !errors.Is(err, fdstore.ErrFull) { // of a full one the next handoff knows
		d.unsaved = time.AfterFunc(saveAgain, func() {
			d.Do(func(*sockets.Set) { d.unsaved = nil; d.save() })
		})
	}
}

// sync sends what differs: new entries, then the state that describes them, then removals, so that at every moment
// the store holds at least what its state speaks of. It runs on the loop.
func (d *Daemon) sync() error {
	k := d.keeper
	if k.store == nil {
		return nil
	}
	want, overflow := d.entries()
	if err := k.makeRoom(want, overflow); errors.Is(err, fdstore.ErrFull) {
		// The state has its place: by that the next supervisor finds a worker without an entry, by pid and start time.
		return errors.Join(err, d.writeState())
	} else if err != nil {
		return err
	}
	for _, e := range want {
		if id, ok := k.have[e.name]; ok && id == e.identity {
			continue
		}
		if _, ok := k.have[e.name]; ok { // the name now means another descriptor
			if err := k.remove(e.name); err != nil {
				return err
			}
		}
		if err := k.store.Add(e.name, e.fd, false); err != nil {
			return fmt.Errorf("store %s: %w", e.name, err)
		}
		k.have[e.name] = e.identity
		fault.Point("store entry")
	}
	if err := k.syncBundle(overflow); err != nil {
		return err
	}
	if err := d.writeState(); err != nil {
		return err
	}
	return k.prune(want, k.bundleName(k.bundle))
}

// prune removes what is not wanted any more.
func (k *keeper) prune(want []entry, bundle string) error {
	keep := map[string]bool{entryState: true, bundle: true}
	for _, e := range want {
		keep[e.name] = true
	}
	for name := range k.have {
		if !keep[name] {
			if err := k.remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeRoom sees to it that what is new fits. In a store without room the removals, which otherwise come last, come
// first; if that is not enough, nothing is sent.
func (k *keeper) makeRoom(want []entry, overflow []fdstore.Named) error {
	needed := 1 // the state, while it is replaced
	for _, e := range want {
		if _, ok := k.have[e.name]; !ok {
			needed++
		}
	}
	if len(overflow) > 0 {
		needed++
	}
	if k.limit == 0 || k.store.Len()+needed <= k.limit {
		return nil
	}
	if err := k.prune(want, k.bundleName(k.bundle)); err != nil {
		return err
	}
	if needed == 1 || k.store.Len()+needed-1 <= k.limit {
		return nil // writeState does with what there is
	}
	return fmt.Errorf("%w: it is %d and must be at least %d", fdstore.ErrFull, k.limit, k.store.Len()+needed)
}

func (k *keeper) remove(name string) error {
	if err := k.store.Remove(name); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	delete(k.have, name)
	fault.Point("store remove")
	return nil
}

// entries lists what the store should hold one by one, and the sockets beyond that.
func (d *Daemon) entries() (want []entry, overflow []fdstore.Named) {
	for _, g := range d.gens {
		if g.State == handoff.Gone {
			continue
		}
		n := strconv.Itoa(g.N)
		if g.Notify != nil { // before there is a process: what it says must not be lost with this supervisor
			want = append(want, entry{prefixNotify + n, g.Notify.FD(), uint64(g.N)})
		}
		if g.Process != nil && g.Process.Pidfd() >= 0 {
			want = append(want, entry{prefixWorker + n, g.Process.Pidfd(), g.Process.StartTime()})
		}
		if g.Intercept != nil {
			want = append(want, entry{prefixBind + n, g.Intercept.Num(), uint64(g.N)})
		}
	}
	for _, p := range d.pushed {
		want = append(want, entry{p.entry(), p.FD.Num(), p.identity})
	}
	single := 0
	add := func(prefix, name string, fd *sys.FD, identity uint64) {
		name = prefix + name
		if single < maxSingle && !d.keeper.renamed(name, identity) {
			single++
			want = append(want, entry{name, fd.Num(), identity})
			return
		}
		overflow = append(overflow, fdstore.Named{Name: name, FD: fd, Meta: strconv.FormatUint(identity, 16)})
	}
	for _, s := range d.held.Ordered(nil) {
		add(prefixSocket, s.Name, s.FD, s.Cookie)
		if s.Alternate != nil {
			add(alternatePrefix(s), s.Name, s.Alternate, s.Second)
		}
	}
	return want, overflow
}

// renamed tells whether the store has the socket under another name. systemd takes no second entry of it, and between
// two there would be none: meanwhile the bundle holds it, and the next sync stores it by itself.
func (k *keeper) renamed(name string, identity uint64) bool {
	if k.have[name] == identity {
		return false
	}
	for other, id := range k.have {
		if _, ok := socketOf(other, nil); ok && id == identity {
			return true
		}
	}
	return false
}

// alternatePrefix begins the name of the entry of s's second half. The kernel knows the halves of a pair by their order,
// and does not tell it: without a readable state this name is all that tells which of them gets what arrives.
func alternatePrefix(s *sockets.Socket) string {
	if s.Exchanged {
		return prefixFirst
	}
	return prefixAlternate
}

func (k *keeper) bundleName(n int) string { return prefixBundle + strconv.Itoa(n) }

// syncBundle replaces the bundle when what it should hold has changed. The old one is removed by the caller, after
// the new one is in the store.
func (k *keeper) syncBundle(overflow []fdstore.Named) error {
	if len(overflow) == 0 {
		k.bundle, k.bundled, k.inBundle = 0, 0, nil
		return nil
	}
	h := fnv.New64a()
	for _, n := range overflow {
		io.WriteString(h, n.Name+" "+n.Meta+"\n")
	}
	if k.bundle != 0 && k.bundled == h.Sum64() {
		return nil
	}
	fd, err := fdstore.NewBundle(overflow)
	if err != nil {
		return fmt.Errorf("bundle %d sockets: %w", len(overflow), err)
	}
	defer fd.Close()
	next := k.bundle + 1
	for _, taken := k.have[k.bundleName(next)]; taken; _, taken = k.have[k.bundleName(next)] {
		next++
	}
	if err := k.store.Add(k.bundleName(next), fd.Num(), false); err != nil {
		return fmt.Errorf("store %s: %w", k.bundleName(next), err)
	}
	k.bundle, k.bundled, k.inBundle = next, h.Sum64(), map[string]bool{}
	for _, n := range overflow {
		k.inBundle[n.Name] = true
	}
	k.have[k.bundleName(next)] = k.bundled
	fault.Point("store bundle")
	return nil
}

// writeState replaces the state in the store. systemd removes by name, and all entries of it, so the new state is
// first stored under a second name: at no moment is there none. Two states tell by their sequence which is newer.
func (d *Daemon) writeState() error {
	k := d.keeper
	s := d.snapshot()
	k.lastServed = s.Serving
	k.sequence++
	s.Sequence = k.sequence
	data, err := s.encode()
	if err != nil {
		return err
	}
	first, err := sys.SealedMemfd(entryState, data)
	if err != nil {
		return err
	}
	defer first.Close()
	second, err := sys.Reopen(first.Num()) // another open file description, or systemd takes it for a duplicate
	if err != nil {
		return err
	}
	defer second.Close()
	fault.Point("state write")
	err = k.store.Add(entryStateNext, first.Num(), false)
	room := !errors.Is(err, fdstore.ErrFull) // without, there is none for an instant
	if !room {
		err = nil
	}
	fault.Point("state next")
	if err == nil {
		err = k.store.Remove(entryState)
	}
	fault.Point("state removed")
	if err == nil {
		err = k.store.Add(entryState, second.Num(), false)
	}
	if errors.Is(err, fdstore.ErrFull) { // the other takes the room, perhaps since an earlier attempt
		if err = k.store.Remove(entryStateNext); err == nil {
			err = k.store.Add(entryState, second.Num(), false)
		}
	}
	fault.Point("state stored")
	if err == nil && room {
		err = k.store.Remove(entryStateNext)
	}
	if err != nil {
		return fmt.Errorf("store the state: %w", err)
	}
	delete(k.have, entryStateNext)
	k.have[entryState] = k.sequence
	return nil
}
