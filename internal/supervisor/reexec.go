package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/internal/control"
	"github.com/8265a91a/supervisor/internal/fault"
	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/internal/text"
	"github.com/8265a91a/supervisor/pkg/activation"
	"github.com/8265a91a/supervisor/pkg/worker"
)

// preflightTimeout bounds the trial run of a new binary.
const preflightTimeout = 10 * time.Second

// Reexec implements [control.Handler]: it replaces this process's program by the binary on disk, in place: same pid,
// same children, all descriptors. execve cannot be taken back, so the new binary first has to read the present state
// in a process of its own (see [Preflight]); if it cannot, nothing changes. A handoff under way is waited for. The
// answer is sent first, then the servers close, then the binary changes.
func (d *Daemon) Reexec(ctx context.Context, events func(control.Event)) control.Result {
	binary, err := d.prepareReexec(ctx, events)
	if err != nil {
		return control.Result{Error: "cannot replace the supervisor's binary: " + err.Error() + "; this one stays in charge"}
	}
	go d.reexec(binary)
	return control.Result{OK: true}
}

func (d *Daemon) prepareReexec(ctx context.Context, events func(control.Event)) (string, error) {
	binary, err := os.Executable()
	if err != nil {
		return "", err
	}
	binary = strings.TrimSuffix(binary, " (deleted)")
	waits := false
	d.Do(func(*sockets.Set) { waits = d.op != nil })
	if waits {
		events(control.Event{Type: control.TypeNote, Text: "a handoff is under way; the binary is replaced when it is over"})
	}
	if err := d.waitForHandoff(ctx); err != nil {
		return "", err
	}
	return binary, d.preflight(ctx, binary)
}

// waitForHandoff returns when no handoff is under way.
func (d *Daemon) waitForHandoff(ctx context.Context) error {
	for {
		var wait chan struct{}
		err := errStopping
		d.Do(func(*sockets.Set) {
			if !d.stopping {
				err = nil
			}
			if d.op != nil {
				wait = d.op.done
			}
		})
		if err != nil || wait == nil {
			return err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return errors.New("gave up waiting for the handoff under way")
		}
	}
}

// reexec changes the binary. If that fails after all, this one goes on.
func (d *Daemon) reexec(binary string) {
	for begun := false; !begun; { // whoever waits for a reload gets its result first
		if err := d.waitForHandoff(context.Background()); err != nil {
			return
		}
		d.Do(func(*sockets.Set) {
			begun = d.op == nil
			d.replacing = begun
		})
	}
	d.stopServers()
	for done := false; !done; {
		if err := d.waitForHandoff(context.Background()); err != nil {
			return
		}
		d.pauseBinds()
		d.Do(func(*sockets.Set) {
			defer d.resumeBinds()
			if d.op != nil || d.stopping || len(d.signals) > 0 {
				return // one began meanwhile, or is asked for
			}
			done = true
			err := d.exec(binary)
			d.replacing = false
			d.Note(handoff.Warning, "cannot replace the supervisor's binary, this one stays in charge: "+err.Error())
			if err := d.openServers(); err != nil {
				d.Note(handoff.Warning, err.Error())
			}
		})
	}
}

// preflight lets the new binary try.
func (d *Daemon) preflight(ctx context.Context, binary string) error {
	var data []byte
	var err error
	d.Do(func(*sockets.Set) { data, err = d.snapshot().encode() })
	if err != nil {
		return err
	}
	file := filepath.Join(d.opts.RuntimeDir, "preflight.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return err
	}
	defer os.Remove(file)
	ctx, cancel := context.WithTimeout(ctx, preflightTimeout)
	defer cancel()
	out, err := worker.Run(ctx, worker.Command{
		Argv:  []string{binary, "preflight", d.opts.Name, file, d.opts.ConfigPath},
		Env:   os.Environ(),
		Files: []int{-1, -1, -1},
	})
	if err != nil {
		return fmt.Errorf("%s does not accept the present state: %w: %s", binary, err, text.LastLines(out, lastLines))
	}
	return nil
}

// Preflight is the trial run: it returns nil if this binary could take over the service called name from a
// supervisor whose state is in file.
func Preflight(name, file, configPath string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	s, err := decodeState(data, name)
	if err != nil {
		return err
	}
	// What a living worker was started with must be understood, or its drain and its restart are lost.
	for sum, text := range s.Configs {
		if _, err := config.Recall(name, configPath, []byte(text)); err != nil {
			return fmt.Errorf("the configuration %.12s that is in force: %w", sum, err)
		}
	}
	return nil
}

// exec runs on the loop, so nothing changes any more. It returns only if it failed.
func (d *Daemon) exec(binary string) error {
	d.save()
	data, err := d.snapshot().encode()
	if err != nil {
		return err
	}
	memfd, err := sys.SealedMemfd(entryState, data)
	if err != nil {
		return err
	}
	defer memfd.Close()
	variable, bundle, err := activation.Handover(d.handover(memfd))
	if err != nil {
		return err
	}
	defer bundle.Close()
	env := append(os.Environ(), variable)
	if d.keeper.limit > 0 {
		env = append(env, "FDSTORE="+strconv.Itoa(d.keeper.limit))
	}
	d.log.Info("replacing the supervisor's binary in place", "binary", binary)
	fault.Point("before exec")
	return os.NewSyscallError("execve "+binary, syscall.Exec(binary, os.Args, env))
}

// handover lists every descriptor under the name that it has, or would have, in the FD store. They are borrowed.
func (d *Daemon) handover(memfd *sys.FD) []activation.Named {
	list := []activation.Named{{Name: entryState, FD: memfd}}
	for _, s := range d.held.Ordered(nil) {
		list = append(list, activation.Named{Name: prefixSocket + s.Name, FD: s.FD})
		if s.Alternate != nil {
			list = append(list, activation.Named{Name: alternatePrefix(s) + s.Name, FD: s.Alternate})
		}
	}
	for _, p := range d.pushed {
		list = append(list, activation.Named{Name: p.entry(), FD: p.FD})
	}
	for _, g := range d.gens {
		if g.State == handoff.Gone || g.Process == nil {
			continue
		}
		n := strconv.Itoa(g.N)
		if g.Process.Pidfd() >= 0 {
			list = append(list, activation.Named{Name: prefixWorker + n, FD: sys.NewFD(g.Process.Pidfd())})
		}
		if g.Notify != nil {
			list = append(list, activation.Named{Name: prefixNotify + n, FD: sys.NewFD(g.Notify.FD())})
		}
		if g.Intercept != nil {
			list = append(list, activation.Named{Name: prefixBind + n, FD: g.Intercept})
		}
	}
	return list
}
