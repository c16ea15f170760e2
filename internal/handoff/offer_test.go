package handoff_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/internal/handoff"
	"github.com/8265a91a/supervisor/internal/sockets"
	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/getsocks"
)

// takeCommand makes the test binary a worker that asks for its sockets over a descriptor, as HAProxy does with sockpair@N,
// when the file is gone, and writes their addresses to the file: take DESCRIPTOR FILE.
const takeCommand = "take"

func take(descriptor, file string) error {
	n, err := strconv.Atoi(descriptor)
	if err != nil {
		return err
	}
	for ; ; time.Sleep(time.Millisecond) {
		if _, err := os.Lstat(file); err != nil {
			break
		}
	}
	ours, theirs, err := sys.Socketpair(syscall.SOCK_STREAM)
	if err != nil {
		return err
	}
	if err := sys.SendRights(sys.NewFD(n), []byte("xx"), []int{theirs.Num()}); err != nil {
		return err
	}
	conn, err := sys.UnixConn(ours)
	if err != nil {
		return err
	}
	list, err := getsocks.FetchConn(context.Background(), conn)
	if err != nil {
		return err
	}
	text := ""
	for _, s := range list {
		info, err := sys.Inspect(s.FD.Num())
		if err != nil {
			return err
		}
		text += info.Address + "\n"
	}
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	time.Sleep(time.Hour)
	return nil
}

// A worker that asks for its sockets gets what another one has pushed, also if that takes it back meanwhile.
func TestOfferKeepsWhatIsPushed(t *testing.T) {
	h := newHost(t)
	file := h.dir + "/taken"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("[worker]\ncommand = [%q, %q, \"${getsocks_fd}\", %q]\n[ready]\nwhen = [\"file\"]\nfile = %[3]q\n", os.Args[0], takeCommand, file)
	if err := os.WriteFile(h.configFile(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.listener(sockets.Unit, "unit", 8080)
	pushed := h.listener(sockets.Pushed, "pushed", 8081)
	cfg, err := h.LoadConfig()
	if err != nil {
		t.Fatal(err)
	}
	ho := &handoff.Handoff{Host: h, Kind: handoff.Start, Config: cfg, OnStep: func(s handoff.Timed) {
		if s.Name == "spawn" {
			h.Do(func(held *sockets.Set) { held.Remove(pushed) })
			os.Remove(file)
		}
	}}
	if err := ho.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if want := fmt.Sprintf("%s:8081\n%[1]s:8080\n", h.addr); err != nil || string(got) != want {
		t.Errorf("it was given %q, want %q (%v)", got, want, err)
	}
}
