//go:build vm

package vm

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/fdstoretest"
)

func init() { builds["fdstore-rules"] = "./internal/fdstoretest/rules" }

// The fake service manager of the other packages' tests is checked against the real one: the same messages must have
// the same outcome. As nobody too, whose descriptors in flight are limited.
var _ = scenario("fdstore-rules", func(t *testing.T, m *Machine) {
	for _, user := range []string{"root", "nobody"} {
		t.Run(user, func(t *testing.T) {
			m := m.With(t)
			unit := "fdstore-rules-" + user + ".service"
			m.WriteFile("/etc/systemd/system/"+unit, `[Service]
Type=notify
User=`+user+`
RuntimeDirectory=fdstore-rules-`+user+`
RuntimeDirectoryPreserve=restart
ExecStart=/usr/bin/fdstore-rules /run/fdstore-rules-`+user+`/report
FileDescriptorStoreMax=16
`)
			m.Systemctl("daemon-reload")
			m.Systemctl("start", unit)
			t.Cleanup(func() { m.Systemctl("stop", unit) })
			m.Systemctl("restart", unit)
			if n := m.FDStoreSize(unit); n != fdstoretest.ExerciseMax {
				t.Errorf("FD store holds %d entries, want %d", n, fdstoretest.ExerciseMax)
			}
			m.Systemctl("restart", unit)

			var got struct {
				Names        []string
				Bundled, Max int
				Errors       []string
			}
			if err := json.Unmarshal([]byte(m.ReadFile("/run/fdstore-rules-"+user+"/report")), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(fdstoretest.Outcome(), got.Names); diff != "" {
				t.Errorf("stored (-want +got):\n%s", diff)
			}
			if got.Bundled != fdstoretest.ExerciseBundle {
				t.Errorf("bundle holds %d, want %d", got.Bundled, fdstoretest.ExerciseBundle)
			}
			if m.Systemd >= 254 && got.Max != fdstoretest.ExerciseMax {
				t.Errorf("FDSTORE=%d, want %d", got.Max, fdstoretest.ExerciseMax)
			}
			if len(got.Errors) > 0 {
				t.Error(got.Errors)
			}
		})
	}
})
