package supervisor

import (
	"errors"
	"fmt"
	"path/filepath"
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
	Name     string
	FD       *sys.FD
	identity uint64
}

// maxPushed bounds what workers may have kept: the store has room for little, and belongs to the sockets.
const maxPushed = 64

func (d *Daemon) notifyPath(n int) string { return filepath.Join(d.notifyDir(), strconv.Itoa(n)) }

// listenTo reads what the processes of g say. Nobody else is listened to, and nothing that an old generation says
// reaches systemd.
func (d *Daemon) listenTo(g *handoff.Generation) {
	if g.Notify == nil {
		return
	}
	n := g.Notify
	complained := time.Time{}
	n.OnError = func(err error) {
		// A worker that floods its socket with nonsense must not flood the journal.
		if time.Since(complained) > 10*time.Second {
			complained = time.Now()
			d.Note(handoff.Warning, fmt.Sprintf("message of generation %d is not used: %v", g.N, err))
		}
	}
	go n.Run(func(pid int, _ uint32) bool { return pid == g.PID() || g.Tree.Contains(pid) }, func(m worker.Message) {
		d.Do(func(*sockets.Set) { d.onMessage(g, m); m.FDs = nil })
		sys.CloseAll(m.FDs) // only if the loop has ended
	})
}

// onMessage is one message of a worker. It owns m.FDs.
func (d *Daemon) onMessage(g *handoff.Generation, m worker.Message) {
	if m.Ready {
		g.SetReady()
	}
	if m.HasStatus && m.Status != g.Status {
		g.Status = m.Status
		if g == d.serving {
			d.manager.notify("STATUS=" + m.Status)
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
	case m.Watchdog == "trigger":
		d.watchdogExpired(g, "asked for it (WATCHDOG=trigger)")
	case m.Watchdog != "":
		d.armWatchdog(g)
	}
	switch {
	case m.FDStoreRemove:
		d.unpush(m.FDName)
	case m.FDStore:
		d.push(g, m.FDName, m.FDs)
	}
}

// push keeps the descriptors that a worker sent in one message. It takes ownership of them.
func (d *Daemon) push(g *handoff.Generation, name string, fds []*sys.FD) {
	if name == "" {
		name = "stored"
	}
	for i, fd := range fds {
		if err := d.tryPush(name, fd); err != nil {
			d.Note(handoff.Warning, fmt.Sprintf("generation %d asked to store %q: descriptor %d of %d: %v", g.N, name, i+1, len(fds), err))
			sys.CloseAll(fds[i:]) // one warning is enough: the rest fares no better
			break
		}
	}
	d.save()
}

// tryPush leaves fd with the caller on error.
func (d *Daemon) tryPush(name string, fd *sys.FD) error {
	if err := fdstore.ValidName(prefixPushed + name); err != nil {
		return err
	}
	if strings.HasPrefix(name, entryPrefix) {
		return errors.New("names that begin with supervisor. are the supervisor's own")
	}
	count := len(d.pushed)
	for _, s := range d.held.Ordered(nil) {
		if s.Origin == sockets.Pushed {
			count++
		}
	}
	if count >= maxPushed {
		return fmt.Errorf("%d descriptors are kept for workers already", maxPushed)
	}
	if info, err := sys.Inspect(fd.Num()); err == nil && (info.Listening || info.Address != "" && !info.Stream()) {
		s, err := sockets.New(fd, sockets.Pushed, name)
		if err != nil {
			return err
		}
		d.held.Add(s)
		return nil
	}
	inode, err := sys.Inode(fd.Num())
	if err != nil {
		return err
	}
	for _, p := range d.pushed {
		// systemd would drop the second without a word, and the accounts would not agree any more.
		if same, err := sys.SameDescription(p.FD.Num(), fd.Num()); err == nil && same && p.Name != name {
			return fmt.Errorf("it is kept already as %q", p.Name)
		}
	}
	d.forget(name)
	d.pushed = append(d.pushed, &pushed{name, fd, inode})
	return nil
}

// unpush forgets what workers sent under a name, in the FD store, too.
func (d *Daemon) unpush(name string) {
	d.forget(name)
	d.save()
}

// forget leaves the FD store to the next save: one message may bring hundreds of descriptors under one name.
func (d *Daemon) forget(name string) {
	kept := d.pushed[:0]
	for _, p := range d.pushed {
		if p.Name == name {
			p.FD.Close()
			continue
		}
		kept = append(kept, p)
	}
	d.pushed = kept
	for _, s := range d.held.Ordered(nil) {
		if s.Origin == sockets.Pushed && s.FDName == name {
			d.held.Remove(s)
		}
	}
}

// adoptPushed takes over what workers had stored.
func (d *Daemon) adoptPushed(in *inherited) {
	for _, e := range in.pushed {
		inode, err := sys.Inode(e.fd.Num())
		if err != nil {
			e.fd.Close()
			continue
		}
		d.keeper.have[prefixPushed+e.name] = inode
		d.pushed = append(d.pushed, &pushed{e.name, e.fd, inode})
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
	if g != d.serving || d.op != nil || d.stopping {
		return
	}
	d.Note(handoff.Warning, fmt.Sprintf("generation %d (pid %d) %s and is replaced", g.N, g.PID(), why))
	g.Watchdog = time.Time{}
	d.requestReload()
}
