//go:build vm

package vm

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/8265a91a/supervisor/test/load"
)

// The floor: a worker that systemd itself activates, without a supervisor. It shows that the harness sees what it
// should, and what plain socket activation gives.
var _ = scenario("harness", func(t *testing.T, m *Machine) {
	m.WriteFile("/etc/systemd/system/floor.socket", "[Socket]\nListenStream=127.0.0.1:6001\nFileDescriptorName=web\n")
	m.WriteFile("/etc/systemd/system/floor.service", `[Service]
Type=notify
ExecStart=/usr/bin/worker -push kept -accept epoll -generation one
FileDescriptorStoreMax=8
Restart=always
RestartSec=50ms
`)
	m.Systemctl("daemon-reload")
	m.Systemctl("start", "floor.socket", "floor.service")
	t.Cleanup(func() { m.Systemctl("stop", "floor.socket", "floor.service") })

	before := m.ListeningInodes(6001)
	if len(before) != 1 {
		t.Fatalf("listening inodes of port 6001: %v", before)
	}
	if n := m.FDStoreSize("floor.service"); n != 1 {
		t.Errorf("FD store holds %d entries, want 1", n)
	}
	if m.FDStoreShown() {
		if store := m.FDStore("floor.service"); len(store) != 1 || store[0].Name != "kept" || !strings.Contains(store[0].Path, "memfd:kept") {
			t.Errorf("FD store: %+v", store)
		}
	}

	old := m.MainPID("floor.service")
	if pid, text := m.Worker("127.0.0.1:6001"); pid != old {
		t.Errorf("answered by %d, want %d: %s", pid, old, text)
	}
	if pids := m.PIDs("floor.service"); !slices.Equal(pids, []int{old}) {
		t.Errorf("processes %v, want %d", pids, old)
	}

	run := m.Load(load.Options{Target: load.Target{Address: "127.0.0.1:6001"}, Pause: time.Millisecond,
		Clients: map[load.Class]int{load.New: 2, load.Keep: 1}})
	m.Kill(old, syscall.SIGKILL)
	m.Eventually(10*time.Second, func() string {
		if pid, text := m.Worker("127.0.0.1:6001"); pid == 0 || pid == old {
			return "no other worker answers: " + text
		}
		return ""
	})
	result := run.Stop()
	t.Logf("\n%s", result)
	if n := result.Classes[load.New].Kinds[load.Refused]; n != 0 {
		t.Errorf("%d connections were refused while the socket unit held the port", n)
	}
	if after := m.ListeningInodes(6001); !slices.Equal(before, after) {
		t.Errorf("listening inodes %v, before %v", after, before)
	}
	if m.Alive(old) {
		t.Errorf("process %d is alive after SIGKILL", old)
	}
})
