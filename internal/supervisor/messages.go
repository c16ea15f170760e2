package supervisor

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/fdstore"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// pushed is something that is no socket, or none that listens, which a worker sent with FDSTORE=1: the next
// generation receives it under its name.
type pushed struct {
	sockets.Claim
	Name     string
	number   int // from 1, among those of one name
	FD       *sys.FD
	identity uint64
}

// entry is its name in the FD store. The number comes first, since the worker's name may end in one.
func (p *pushed) entry() string {
	if p.number == 1 {
		return prefixPushed + p.Name
	}
	return prefixMore + strconv.Itoa(p.number) + "." + p.Name
}

// parsePushed takes the name of an entry apart.
func parsePushed(entry string) (name string, number int, err error) {
	if name, ok := strings.CutPrefix(entry, prefixPushed); ok {
		return name, 1, nil
	}
	digits, name, _ := strings.Cut(strings.TrimPrefix(entry, prefixMore), ".")
	if number, err = strconv.Atoi(digits); err != nil || number < 2 || name == "" {
		return "", 0, errors.New("the name has no number")
	}
	return name, number, nil
}

func comparePushed(a, b *pushed) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.number, b.number))
}

// maxPushed bounds what workers may have kept: the store has room for little, and belongs to the sockets.
const maxPushed = 64

func (d *Daemon) notifyPath(n int) string { return filepath.Join(d.notifyDir(), strconv.Itoa(n)) }

// complainPause is the least time between two warnings about messages: a worker that floods its socket with nonsense must
// not flood the journal.
const complainPause = 10 * time.Second

// listenTo reads what the processes of g say. Nobody else is listened to, and nothing that an old generation says
// reaches systemd.
func (d *Daemon) listenTo(g *handoff.Generation) {
	if g.Notify == nil {
		return
	}
	n := g.Notify
	complained := time.Time{}
	n.OnError = func(err error) {
		if time.Since(complained) > complainPause {
			complained = time.Now()
			d.Note(handoff.Warning, fmt.Sprintf("message of generation %d is not used: %v", g.N, err))
		}
	}
	go n.Run(func(pid int, _ uint32) bool { return pid == g.PID() || g.Tree.Contains(pid) }, func(m worker.Message) {
		var saved chan struct{}
		d.Do(func(*sockets.Set) {
			d.onMessage(g, m)
			m.FDs = nil
			if d.saves.next != nil {
				saved = d.saves.done
			}
		})
		sys.CloseAll(m.FDs) // only if the loop has ended
		if m.Barrier && saved != nil {
			select { // its answer says that what came before is stored
			case <-saved:
			case <-d.ended:
			}
		}
	})
}

// onMessage is one message of a worker. It owns m.FDs.
func (d *Daemon) onMessage(g *handoff.Generation, m worker.Message) {
	switch {
	case m.Reloading:
		g.Says = "reloading"
	case m.Stopping:
		g.Says = "stopping"
	case m.Ready:
		g.Says = ""
	}
	if m.Ready {
		g.SetReady()
	}
	if m.HasStatus && m.Status != g.Status {
		g.Status = m.Status
		if g == d.serving {
			d.gather(&d.statuses, true, func() {
				if g == d.serving {
					d.manager.status(g.Status)
				}
			})
		}
	}
	if m.MainPID != 0 && m.MainPID != g.PID() && !g.ForeignMain {
		g.ForeignMain = true
		d.Note(handoff.Warning, fmt.Sprintf("generation %d says that its main process is %d; the supervisor stays with %d, which it started", g.N, m.MainPID, g.PID()))
	}
	if m.ExtendTimeout > 0 {
		g.Extend(m.ExtendTimeout)
	}
	switch {
	case m.Watchdog == "trigger" && g.Config.Worker.Watchdog == 0: // as WATCHDOG=1 it means nothing without one
	case m.Watchdog == "trigger":
		d.watchdogExpired(g, "asked for it (WATCHDOG=trigger)")
	case m.Watchdog != "":
		d.armWatchdog(g)
	}
	switch {
	case m.FDStoreRemove: // of both systemd does this
		sys.CloseAll(m.FDs)
		d.unpush(g, m.FDName)
	case m.FDStore:
		d.push(g, m.FDName, m.FDs)
	}
}

// What a starting generation pushes and removes is stored at once, so that its barrier is answered truthfully, but only
// noted beside what is kept (see [sockets.Claim]): it holds from the switch on. If the generation comes to nothing, all is
// as it was before.

// push keeps the descriptors that a worker sent in one message, of which it takes ownership. Listeners join what is held;
// the others take the place of those that it, or an older one, sent under that name before.
func (d *Daemon) push(g *handoff.Generation, name string, fds []*sys.FD) {
	if name == "" {
		name = "stored"
	}
	if g.State == handoff.Gone || d.outdated(g, name) {
		sys.CloseAll(fds)
		return
	}
	changed := false
	var blobs []*pushed
	for i, fd := range fds {
		added, err := d.tryPush(g, name, fd, &blobs)
		changed = changed || added
		if err == nil {
			continue
		}
		sys.CloseAll(fds[i:]) // the rest fares no better
		d.complain(handoff.Warning, fmt.Sprintf("generation %d asked to store %q: descriptor %d of %d: %v", g.N, name, i+1, len(fds), err))
		break
	}
	if len(blobs) > 0 && d.replacePushed(g, name, blobs) || changed {
		d.gather(&d.saves, true, d.save)
	}
}

// complain is a note about what a worker pushes.
func (d *Daemon) complain(level handoff.Level, text string) {
	if time.Since(d.complained[level]) > complainPause {
		d.complained[level] = time.Now()
		d.Note(level, text)
	}
}

// outdated tells, and notes, that a newer generation has stored something under the name since.
func (d *Daemon) outdated(g *handoff.Generation, name string) bool {
	i := slices.IndexFunc(d.pushed, func(p *pushed) bool { return p.Name == name && p.By > g.N })
	if i < 0 {
		return false
	}
	d.complain(handoff.Info, fmt.Sprintf("generation %d asked to store or remove %q: generation %d has stored it since, and that stays", g.N, name, d.pushed[i].By))
	return true
}

// tryPush adds a listener to what is held, and anything else to blobs. It leaves fd with the caller on error.
func (d *Daemon) tryPush(g *handoff.Generation, name string, fd *sys.FD, blobs *[]*pushed) (changed bool, err error) {
	if strings.HasPrefix(name, entryPrefix) {
		return false, errors.New("names that begin with supervisor. are the supervisor's own")
	}
	if err := fdstore.ValidName((&pushed{Name: name, number: 1 << 20}).entry()); err != nil {
		return false, err
	}
	if p := d.findPushed(fd, *blobs); p != nil {
		// systemd would drop the second without a word, and the accounts would not agree any more.
		if p.Name != name {
			return false, fmt.Errorf("it is kept already as %q", p.Name)
		}
		fd.Close()
		if !slices.Contains(*blobs, p) {
			*blobs = append(*blobs, p)
		}
		return false, nil
	}
	info, err := sys.Inspect(fd.Num())
	listens := err == nil && (info.Listening || info.Address != "" && !info.Stream())
	if listens {
		if s := d.held.ByCookie(info.Cookie); s != nil {
			fd.Close()
			return s.Origin == sockets.Pushed && s.FDName == name && s.Claim.Make(g.N, g.State == handoff.Starting), nil
		}
	}
	if len(*blobs)+d.countPushed(name) >= maxPushed {
		return false, fmt.Errorf("%d descriptors are kept for workers already", maxPushed)
	}
	if listens {
		s, err := sockets.New(fd, sockets.Pushed, name)
		if err == nil {
			s.Claim.Make(g.N, g.State == handoff.Starting)
			_, changed = d.held.Add(s)
		}
		return changed, err
	}
	inode, err := sys.Inode(fd.Num())
	if err == nil {
		*blobs = append(*blobs, &pushed{Name: name, FD: fd, identity: inode})
	}
	return false, err
}

// findPushed returns what is the same open file description as fd, or nil.
func (d *Daemon) findPushed(fd *sys.FD, more []*pushed) *pushed {
	for _, list := range [][]*pushed{d.pushed, more} {
		for _, p := range list {
			if same, err := sys.SameDescription(p.FD.Num(), fd.Num()); err == nil && same {
				return p
			}
		}
	}
	return nil
}

// countPushed counts what is kept for workers and will not be replaced by blobs called name.
func (d *Daemon) countPushed(name string) (count int) {
	for _, p := range d.pushed {
		if p.Name != name {
			count++
		}
	}
	for _, s := range d.held.Ordered(nil) {
		if s.Origin == sockets.Pushed {
			count++
		}
	}
	return count
}

// replacePushed makes blobs all that g wants to have kept under name, listeners aside, and reports whether that is a change.
// What was kept before keeps its number: systemd would not take it under another name.
func (d *Daemon) replacePushed(g *handoff.Generation, name string, blobs []*pushed) (changed bool) {
	changed = d.dropPushed(g, func(p *pushed) bool { return p.Name == name && !slices.Contains(blobs, p) })
	last, used := 0, map[int]bool{}
	for _, p := range blobs {
		last = max(last, p.number)
	}
	for _, p := range d.pushed {
		used[p.number] = used[p.number] || p.Name == name
	}
	for _, p := range blobs {
		if p.Make(g.N, g.State == handoff.Starting) {
			changed = true
		}
		if p.number != 0 {
			continue
		}
		for last++; used[last]; last++ {
		}
		p.number = last
		if _, taken := d.keeper.have[p.entry()]; taken {
			d.keeper.have[p.entry()] = 0 // by what was dropped, which may have the same inode: eventfds all do
		}
		d.pushed = append(d.pushed, p)
	}
	slices.SortFunc(d.pushed, comparePushed)
	return changed
}

// dropPushed notes that g does not want to have the blobs kept that which selects, and closes those that nobody wants. It
// leaves the FD store to the next save.
func (d *Daemon) dropPushed(g *handoff.Generation, which func(*pushed) bool) (changed bool) {
	d.pushed = slices.DeleteFunc(d.pushed, func(p *pushed) bool {
		if !which(p) || !p.Drop(g.N, g.State == handoff.Starting) {
			return false
		}
		changed = true
		if p.Claim != (sockets.Claim{}) {
			return false
		}
		p.FD.Close()
		return true
	})
	return changed
}

// dropListeners does the same with pushed listeners.
func (d *Daemon) dropListeners(g *handoff.Generation, which func(*sockets.Socket) bool) (changed bool) {
	for _, s := range d.held.Ordered(nil) {
		if s.Origin != sockets.Pushed || !which(s) || !s.Claim.Drop(g.N, g.State == handoff.Starting) {
			continue
		}
		changed = true
		if s.Claim == (sockets.Claim{}) {
			d.held.Remove(s)
		}
	}
	return changed
}

// unpush forgets what a worker, or an older one, sent under a name, listeners included.
func (d *Daemon) unpush(g *handoff.Generation, name string) {
	if g.State == handoff.Gone {
		return
	}
	d.outdated(g, name) // which stays
	changed := d.dropPushed(g, func(p *pushed) bool { return p.Name == name })
	changed = d.dropListeners(g, func(s *sockets.Socket) bool { return s.FDName == name }) || changed
	if g.State == handoff.Starting && !slices.Contains(g.Unpushed, name) && d.keeps(name) {
		g.Unpushed = append(g.Unpushed, name)
		changed = true
	}
	if changed {
		d.gather(&d.saves, false, d.save) // what follows in its place must be stored at once
	}
}

// keeps tells whether anything is kept for workers under the name.
func (d *Daemon) keeps(name string) bool {
	return slices.ContainsFunc(d.pushed, func(p *pushed) bool { return p.Name == name }) ||
		slices.ContainsFunc(d.held.Ordered(nil), func(s *sockets.Socket) bool { return s.Origin == sockets.Pushed && s.FDName == name })
}

// settlePushed makes what g asked for while it was starting hold. It serves now.
func (d *Daemon) settlePushed(g *handoff.Generation) {
	replaced := map[string]bool{}
	for _, p := range d.pushed {
		replaced[p.Name] = replaced[p.Name] || p.Next == g.N
		p.Settle(g.N)
	}
	for _, s := range d.held.Ordered(nil) {
		s.Claim.Settle(g.N)
	}
	d.dropPushed(g, func(p *pushed) bool { return p.By != g.N && (replaced[p.Name] || slices.Contains(g.Unpushed, p.Name)) })
	d.dropListeners(g, func(s *sockets.Socket) bool { return s.Claim.By != g.N && slices.Contains(g.Unpushed, s.FDName) })
	g.Unpushed = nil
}

// discardPushed forgets what g, which has not come to serve, asked for.
func (d *Daemon) discardPushed(g *handoff.Generation) {
	d.dropPushed(g, func(*pushed) bool { return true })
	d.dropListeners(g, func(*sockets.Socket) bool { return true })
	g.Unpushed = nil
}

// adoptPushed takes over what workers had stored.
func (d *Daemon) adoptPushed(in *inherited, last *state) {
	claims := last.pushed()
	for _, e := range in.pushed {
		p := &pushed{FD: e.fd, Claim: claims(e.name)}
		var err error
		if p.Name, p.number, err = parsePushed(e.name); err == nil {
			p.identity, err = sys.Inode(e.fd.Num())
		}
		if err != nil {
			d.Note(handoff.Warning, fmt.Sprintf("FD store entry %s is not used and removed: %v", e.name, err))
			e.fd.Close()
			continue
		}
		d.keeper.have[e.name] = p.identity
		d.pushed = append(d.pushed, p)
	}
	slices.SortFunc(d.pushed, comparePushed)
	for _, s := range d.held.Ordered(nil) {
		if s.Origin == sockets.Pushed && s.Claim == (sockets.Claim{}) {
			s.Claim = unknownClaim
		}
	}
	if n := last.starting(); n != 0 && (d.starting == nil || d.starting.N != n) {
		d.discardPushed(handoff.NewGeneration(n, 0, nil))
	}
}

// Pushed implements [handoff.Host].
func (d *Daemon) Pushed() (list []handoff.Extra) {
	for _, p := range d.pushed {
		list = append(list, handoff.Extra{Name: p.Name, FD: p.FD.Num()})
	}
	return list
}

// armWatchdog expects the next WATCHDOG=1 of a worker that has a watchdog.
func (d *Daemon) armWatchdog(g *handoff.Generation) {
	if limit := g.Config.Worker.Watchdog; limit > 0 && g.State == handoff.Serving {
		g.Watchdog = time.Now().Add(limit)
	}
}

// resumeWatchdog watches a serving worker that is not watched: an adopted one, or one whose replacement failed.
func (d *Daemon) resumeWatchdog() {
	if g := d.serving; g != nil && g.Watchdog.IsZero() {
		d.armWatchdog(g)
	}
}

func (d *Daemon) checkWatchdog(now time.Time) {
	if g := d.serving; g != nil && !g.Watchdog.IsZero() && now.After(g.Watchdog) {
		d.watchdogExpired(g, fmt.Sprintf("sent no WATCHDOG=1 for %s", g.Config.Worker.Watchdog))
	}
}

// watchdogExpired replaces a worker that hangs. Its drain escalates if it does not even stop.
func (d *Daemon) watchdogExpired(g *handoff.Generation, why string) {
	if g != d.serving || d.op != nil || d.retry != nil || d.stopping {
		return
	}
	d.Note(handoff.Warning, fmt.Sprintf("generation %d (pid %d) %s and is replaced", g.N, g.PID(), why))
	g.Watchdog = time.Time{}
	d.backoff.failed(g.Age(), why)
	d.schedule(handoff.Replace, nil)
}
