package supervisor_test

import (
	"fmt"
	"net"
	"os"
	"testing"
)

const fetchPidfd = unitOnly + "[handoff]\nfetch = \"pidfd\"\n"

// A Unix socket that each generation makes anew at the same path, and one in its own directory, stay its own: what is held
// does not grow.
func TestAdminSocketOfEachGeneration(t *testing.T) {
	t.Parallel()
	s := newService(t, "")
	admin := s.dir + "/admin"
	s.configure(fetchPidfd + fmt.Sprintf("[worker]\ncommand = [%q, \"-generation\", \"${generation}\", \"-bind=unix:%s\", \"-idle=%[2]s\", \"-bind=unix:${dir}/own\", \"-args\", %q]\n",
		workerProgram, admin, s.argsFile()))
	s.arguments("-bind=tcp:" + s.addr)
	s.start()
	s.arguments()
	load := s.load()
	last := uint64(0)
	for n := 1; n <= 4; n++ {
		s.alone()
		held := s.fds().Sockets
		if len(held) != 2 || held[0].Address != s.addr || held[1].Address != admin || held[1].Inode == last {
			t.Fatalf("generation %d: held %+v", n, held)
		}
		last = held[1].Inode
		if conn, err := net.Dial("unix", admin); err != nil {
			t.Error(err)
		} else {
			conn.Close()
		}
		if n == 3 {
			s.kill()
			s.start()
		}
		s.reload()
	}
	if err := os.Remove(admin); err != nil {
		t.Fatal(err)
	}
	load.end()
	s.stop()
}
