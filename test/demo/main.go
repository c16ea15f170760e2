// Command demo shows a supervisor at work: a server under load is reloaded ten
// times and killed once, and the requests that failed are counted.
//
// It needs no systemd and no configuration: everything is in a temporary
// directory, listens on the loopback, and is gone afterwards. HAProxy is the
// server where it is installed, the tests' own worker otherwise.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/8265a91a/supervisor/test/load"
)

const (
	reloads  = 10
	deadline = 30 * time.Second
	// around is how long the load goes on before and after what happens to the server.
	around = 300 * time.Millisecond
)

// demo is one run.
type demo struct {
	dir, binary, server, address string
	daemon                       *exec.Cmd
	ended                        chan struct{}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "supervisor-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d := &demo{dir: dir, binary: filepath.Join(dir, "supervisor")}
	if err := d.prepare(); err != nil {
		return err
	}
	if err := d.start(); err != nil {
		return err
	}
	defer d.stop()
	return d.show(ctx)
}

func (d *demo) start() error {
	d.daemon = d.supervisor("run", "--config", filepath.Join(d.dir, "demo.toml"))
	log, err := os.Create(filepath.Join(d.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	d.daemon.Stdout, d.daemon.Stderr = log, log
	// An interrupt at the terminal is for this program, which then stops the supervisor in its own time.
	d.daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.daemon.Start(); err != nil {
		return err
	}
	d.ended = make(chan struct{})
	go func() {
		_ = d.daemon.Wait()
		close(d.ended)
	}()
	if _, err := d.await(func(pid int) bool { return pid != 0 }); err != nil {
		d.stop()
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("the server does not answer: %w; the supervisor says:\n%s", err, text)
	}
	return nil
}

// supervisor is the command line of the binary under demonstration, outside of whatever systemd started this program.
func (d *demo) supervisor(args ...string) *exec.Cmd {
	cmd := exec.Command(d.binary, args...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "NOTIFY_SOCKET=") && !strings.HasPrefix(v, "LISTEN_") && !strings.HasPrefix(v, "WATCHDOG_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "SUPERVISOR_RUNTIME_DIR="+d.dir)
	return cmd
}

func (d *demo) stop() {
	_ = d.daemon.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.ended:
	case <-time.After(deadline):
		_ = d.daemon.Process.Kill()
		<-d.ended
	}
}

// await asks until a worker answers that suits.
func (d *demo) await(suits func(pid int) bool) (int, error) {
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if pid := d.worker(); suits(pid) {
			return pid, nil
		}
		select {
		case <-d.ended:
			return 0, errors.New("the supervisor has ended")
		default:
		}
	}
	return 0, fmt.Errorf("nothing after %s", deadline)
}

// worker is the pid that answers, or 0.
func (d *demo) worker() int {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + d.address + "/")
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	var pid int
	_, _ = fmt.Sscanf(string(body), "pid=%d", &pid)
	return pid
}

func (d *demo) load() *load.Run {
	return load.Start(context.Background(), load.Options{Target: load.Target{Address: d.address}, Pause: time.Millisecond,
		Clients: map[load.Class]int{load.New: 4, load.Late: 4, load.Keep: 4}})
}

func (d *demo) show(ctx context.Context) error {
	fmt.Printf("server: %s, on %s\n\n%d reloads under load: new connections, slow senders (150 ms), kept connections\n", d.server, d.address, reloads)
	run := d.load()
	for range reloads {
		if ctx.Err() != nil {
			run.Stop()
			return errors.New("interrupted")
		}
		if out, err := d.supervisor("reload", "demo").CombinedOutput(); err != nil {
			run.Stop()
			return fmt.Errorf("reload: %w\n%s", err, out)
		}
		time.Sleep(around)
	}
	reloaded := run.Stop()
	fmt.Println(reloaded)
	if err := d.timelines(); err != nil {
		return err
	}
	fmt.Println("\nthe worker is killed with SIGKILL under load")
	run = d.load()
	time.Sleep(around)
	old, err := d.await(func(pid int) bool { return pid != 0 })
	if err != nil {
		return err
	}
	start := time.Now()
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill worker %d: %w", old, err)
	}
	pid, err := d.await(func(pid int) bool { return pid != 0 && pid != old })
	if err != nil {
		return err
	}
	took := time.Since(start)
	time.Sleep(around)
	killed := run.Stop()
	fmt.Println(killed)
	fmt.Printf("worker %d answered after %s; only what %d had already accepted could die with it\n\n", pid, took.Round(time.Millisecond), old)
	refused := int64(0)
	for _, c := range killed.Classes {
		refused += c.Kinds[load.Refused] + c.Kinds[load.Timeout] + c.Kinds[load.Wrong]
	}
	fmt.Printf("%d reloads: %d requests, %d failed\nSIGKILL: %d requests, %d refused\n", reloads, reloaded.Requests(), reloaded.Failures(), killed.Requests(), refused)
	if reloaded.Failures()+refused > 0 {
		return errors.New("requests were lost")
	}
	return nil
}
