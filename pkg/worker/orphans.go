package worker

import (
	"sync"

	"github.com/8265a91a/supervisor/internal/sys"
)

// children knows every watched process, so that its status is left to its watcher.
var children = registry{byPID: map[int]*Process{}}

type registry struct {
	// spawning is held for reading while a child exists that is not registered yet.
	spawning sync.RWMutex
	mu       sync.Mutex
	byPID    map[int]*Process
}

func (r *registry) add(p *Process) {
	r.mu.Lock()
	r.byPID[p.pid] = p
	r.mu.Unlock()
}

func (r *registry) remove(p *Process) {
	r.mu.Lock()
	if r.byPID[p.pid] == p { // the pid may have been given to a newer child already
		delete(r.byPID, p.pid)
	}
	r.mu.Unlock()
}

func (r *registry) get(pid int) *Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byPID[pid]
}

// ReapOrphans reaps every child that has ended and that no [Process] watches, and returns their number. A subreaper
// calls it on SIGCHLD, and once after its last [Adopt]. Children started by other means (os/exec) would be reaped, too.
func ReapOrphans() int {
	for n := 0; ; {
		children.spawning.Lock()
		pid, err := sys.PeekExited()
		if err != nil || pid == 0 {
			children.spawning.Unlock()
			return n
		}
		p := children.get(pid)
		if p == nil && sys.ReapChild(pid) == nil {
			n++
		}
		children.spawning.Unlock()
		if p != nil {
			<-p.watched // the kernel shows it first until it is reaped, and hides the others
		}
	}
}
