package handoff

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/probe"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/internal/text"
	"github.com/8265a91a/supervisor/pkg/getsocks"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// check reads the configuration again and runs worker.check; both must pass before anything is touched.
func (h *Handoff) check(ctx context.Context) (string, error) {
	if h.Kind == Restart || h.Kind == Replace {
		return "not repeated for a " + string(h.Kind), nil
	}
	if h.Kind == Reload {
		cfg, err := h.Host.LoadConfig()
		if err != nil {
			return "", err
		}
		h.Config = cfg
	}
	for _, w := range h.Config.Warnings {
		h.Host.Note(Warning, w.Error())
	}
	if err := h.checkLate(); err != nil {
		return "", err
	}
	if len(h.Config.Worker.Check) == 0 {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, h.Config.Worker.CheckTimeout)
	defer cancel()
	if h.Config.Worker.CheckWithSockets {
		if err := h.bind(); err != nil {
			return "", err
		}
	}
	cmd, err := h.checkCommand()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(h.checkDir(), 0o755); err != nil {
		return "", err
	}
	defer os.RemoveAll(h.checkDir())
	if err := enterable(h.Config.Worker.Check[0], cmd.Dir); err != nil {
		return "", err
	}
	out, err := worker.Run(ctx, cmd)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no result after %s", h.Config.Worker.CheckTimeout)
	}
	if err != nil {
		return "", &quoted{err: fmt.Errorf("%s: %w", h.Config.Worker.Check[0], err), words: out}
	}
	return "", nil
}

// quoted is an error with the words of the program that caused it.
type quoted struct {
	err   error
	words string
}

func (q *quoted) Error() string {
	if q.words == "" {
		return q.err.Error()
	}
	return q.err.Error() + ": " + text.LastLines(q.words, 3)
}

func (q *quoted) Unwrap() error { return q.err }

// fetch gets the old worker's listening sockets and merges them into the held set by identity; then it binds what
// the configuration names and nobody holds.
func (h *Handoff) fetch(ctx context.Context) (string, error) {
	note := ""
	if h.Old != nil && h.Old.Process != nil {
		var err error
		if note, err = h.fetchOld(ctx); err != nil {
			return "", err
		}
	}
	if err := h.bind(); err != nil {
		return "", err
	}
	h.pairUp()
	return note, nil
}

func (h *Handoff) fetchOld(ctx context.Context) (string, error) {
	if h.Old.Config.Handoff.Fetch == config.FetchNone {
		return "", nil
	}
	found, admin, err := collect(ctx, h.Host, h.Old, nil)
	if err != nil {
		// An old worker that hangs must not be able to prevent its own replacement: what it listens on has been
		// held since it became ready. Only if nothing is held is there nothing to hand over.
		n := h.countServed()
		if n == 0 {
			return "", err
		}
		h.Host.Note(Warning, fmt.Sprintf("cannot fetch the sockets of generation %d (pid %d): %v; going on with the %d held ones", h.Old.N, h.Old.PID(), err, n))
		return "failed, held sockets are used", nil
	}
	added := 0
	h.Host.Do(func(held *sockets.Set) {
		for _, s := range found {
			if _, isNew := held.Add(s); isNew {
				added++
			}
		}
	})
	note := fmt.Sprintf("%d sockets, %d new", len(found), added)
	if admin != nil {
		note += ", and the admin socket, which is not handed on"
	}
	return note, nil
}

// countServed is the number of held sockets on which workers accept: what one pushed may be anything.
func (h *Handoff) countServed() (n int) {
	h.Host.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(nil) {
			if s.Origin != sockets.Pushed {
				n++
			}
		}
	})
	return n
}

// collect asks a generation for its listening sockets, the way its configuration says. The worker's own _getsocks
// socket is described, but neither held nor handed on: n+1 binds its own and renames it over the path, otherwise
// the path would answer for either generation at random. As long as it answers for old, unless that is nil, it is asked
// again.
func collect(ctx context.Context, host Host, g, old *Generation) (found []*sockets.Socket, admin *sys.Socket, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTimeout, fmt.Errorf("no whole answer within %s", fetchTimeout))
	defer cancel()
	switch g.Config.Handoff.Fetch {
	case config.FetchGetsocks:
		path, err := config.Expand(g.Config.Handoff.Getsocks, valuesOf(host, g))
		if err != nil {
			return nil, nil, fmt.Errorf("handoff.getsocks: %w", err)
		}
		return collectGetsocks(ctx, path, func(pid int) error { return answersFor(ctx, path, pid, g, old) })
	case config.FetchPidfd:
		found, err = collectPidfd(ctx, host, g)
		return found, nil, err
	}
	return nil, nil, nil
}

// errOther says that the path of a generation's _getsocks socket is still another's.
var errOther = errors.New("another generation answers there")

// answersFor is errOther if it is not g whose sockets are told at path, where process pid listens. Who cannot be told from
// the kernel is asked, and who does not say either, as only HAProxy does, is believed unless it is old.
func answersFor(ctx context.Context, path string, pid int, g, old *Generation) error {
	of := func(g *Generation, pid int) bool {
		return g != nil && g.Process != nil && (pid == g.PID() || g.Tree.Contains(pid))
	}
	if old == nil || of(g, pid) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	said, err := getsocks.PID(ctx, path)
	switch {
	case err == nil && of(g, said):
		return nil
	case err == nil:
		pid = said
	case !of(old, pid):
		return nil
	}
	return fmt.Errorf("%w: process %d, which is not of generation %d", errOther, pid, g.N)
}

func collectGetsocks(ctx context.Context, path string, accept func(pid int) error) (found []*sockets.Socket, admin *sys.Socket, err error) {
	list, err := getsocks.FetchFrom(ctx, path, accept)
	for wait := time.Millisecond; errors.Is(err, errOther) && sleep(ctx, wait); wait = min(2*wait, 20*time.Millisecond) {
		again, next := getsocks.FetchFrom(ctx, path, accept)
		if next == nil || ctx.Err() == nil && !errors.Is(next, context.DeadlineExceeded) { // what was cut off tells nothing
			list, err = again, next
		}
	}
	if err != nil {
		return nil, nil, err
	}
	for i, l := range list {
		s, err := newListener(l.FD)
		if err != nil {
			getsocks.CloseAll(list[i+1:])
			closeSockets(found)
			return nil, nil, fmt.Errorf("inspect descriptor %d of %d from %s: %w", i+1, len(list), path, err)
		}
		if s.Info.Network == "unix" && getsocks.TrimTemp(s.Info.Address) == path {
			info := s.Info
			info.Address = path
			admin = &info
			s.FD.Close()
			continue
		}
		s.Namespace, s.Interface = l.Namespace, l.Interface
		s.Info.Address = getsocks.TrimTemp(s.Info.Address)
		found = append(found, s)
	}
	return found, admin, nil
}

// newListener takes ownership of fd, which must be a socket at which peers arrive: a client's connection would be kept open.
func newListener(fd *sys.FD) (*sockets.Socket, error) {
	if ok, err := sys.IsListener(fd.Num()); err != nil || !ok {
		fd.Close()
		return nil, cmp.Or(err, errors.New("it is no listening socket"))
	}
	return sockets.New(fd, sockets.Fetched, "")
}

// collectPidfd takes duplicates of every listening socket out of the generation's processes. One that is held stands for
// itself, without a descriptor: ten thousand would otherwise need twenty thousand at once.
func collectPidfd(ctx context.Context, host Host, g *Generation) (found []*sockets.Socket, err error) {
	pids, err := g.Tree.PIDs()
	if err != nil {
		return nil, err
	}
	held := identities(host)
	list, err := probe.TakeListeners(pids, func(inode uint64) bool { return held[inode] == 0 })
	for _, l := range list {
		if l.Dup == nil {
			found = append(found, &sockets.Socket{Meta: sockets.Meta{Cookie: held[l.Inode]}})
			continue
		}
		s, inspect := sockets.New(l.Dup, sockets.Fetched, "")
		if inspect != nil {
			err = errors.Join(err, fmt.Errorf("inspect descriptor %d of process %d: %w", l.FD, l.PID, inspect))
			continue
		}
		found = append(found, s)
	}
	found = reachable(host, g, found)
	if err == nil {
		found, err = lasting(ctx, host, g, found)
	}
	if err != nil {
		closeSockets(found)
		return nil, err
	}
	return found, nil
}

// identities lists the held sockets by inode, both halves of pairs, but those that a worker pushed and may take back at any
// moment: no other leaves the held set while a handoff asks workers what they listen on.
func identities(host Host) map[uint64]uint64 {
	list := map[uint64]uint64{}
	host.Do(func(held *sockets.Set) {
		for _, s := range held.Ordered(nil) {
			if s.Origin == sockets.Pushed {
				continue
			}
			for _, inode := range s.Inodes() {
				list[inode] = s.Cookie
			}
		}
	})
	return list
}

// reachable leaves out, and closes, the Unix sockets of which the next generation can make nothing: those in ${dir}, which is
// this generation's alone, and those whose file is not theirs any more.
func reachable(host Host, g *Generation, found []*sockets.Socket) []*sockets.Socket {
	host.Do(func(held *sockets.Set) {
		found = slices.DeleteFunc(found, func(s *sockets.Socket) bool {
			known := s
			if h := held.ByCookie(s.Cookie); h != nil {
				known = h
			}
			path := filePath(known.Info)
			if known.Origin == sockets.Fetched && known.File == "" {
				known.File = fileID(path)
			}
			out := path != "" && strings.HasPrefix(path, g.Dir+"/") || replaced(known)
			if out {
				s.FD.Close()
			}
			return out
		})
	})
	return found
}

// lastingFor is how long a UDP socket that nobody holds yet must be there to be taken for a server's: those from which a
// process asks others, name servers above all, look the same, but are soon closed.
const lastingFor = time.Second

// lasting leaves out, and closes, the new UDP sockets that the generation closes within a moment.
func lasting(ctx context.Context, host Host, g *Generation, found []*sockets.Socket) ([]*sockets.Socket, error) {
	doubtful := map[uint64]bool{} // by inode, which nothing else gets as long as the duplicate is open
	host.Do(func(held *sockets.Set) {
		for _, s := range found {
			if s.Info.Network == "udp" && held.ByCookie(s.Cookie) == nil {
				doubtful[s.Info.Inode] = true
			}
		}
	})
	if len(doubtful) == 0 {
		return found, nil
	}
	if !sleep(ctx, lastingFor) {
		return found, context.Cause(ctx)
	}
	pids, err := g.Tree.PIDs()
	if err != nil {
		return found, err
	}
	list, err := probe.ListeningSockets(pids)
	if err != nil {
		return found, err
	}
	for _, l := range list {
		delete(doubtful, l.Inode)
	}
	return slices.DeleteFunc(found, func(s *sockets.Socket) bool {
		if doubtful[s.Info.Inode] {
			s.FD.Close()
		}
		return doubtful[s.Info.Inode]
	}), nil
}

func closeSockets(list []*sockets.Socket) {
	for _, s := range list {
		s.FD.Close()
	}
}
