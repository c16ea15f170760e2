package fdstoretest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/fdstore"
)

const (
	// ExerciseMax is the FileDescriptorStoreMax= that [Exercise] is made for.
	ExerciseMax = 16
	// ExerciseBundle is the number of descriptors in the entry "bundle".
	ExerciseBundle = 1000
)

// Outcome returns the sorted names of what is stored after [Exercise] and [Fill].
func Outcome() []string {
	names := slices.Clone(stored)
	for i := len(names); i < ExerciseMax; i++ {
		names = append(names, fmt.Sprint("fill-", i))
	}
	slices.Sort(names)
	return names
}

var longName = strings.Repeat("n", 255)

// stored are the names that are kept before the store is filled up.
var stored = []string{"", "stored", "stored", "backslash", "bundle", "hung", "plain", `with space/"`, longName}

// Exercise sends messages that touch the rules of the FD store behind the notify socket, which must be empty and have
// room for [ExerciseMax] entries.
func Exercise(socket string) error {
	x := exercise{socket: socket}
	defer func() { sys.CloseAll(x.fds) }()
	x.names()
	x.duplicates()
	x.polling()
	x.removal()
	x.bundle()
	x.barrier()
	return x.err
}

// Fill sends more than the store has room for after [Exercise]. systemd drops what has hung up only when no message
// waits, which a barrier does not wait for: give it a quiet moment in between.
func Fill(socket string) error {
	x := exercise{socket: socket}
	defer func() { sys.CloseAll(x.fds) }()
	for i := len(stored); i < ExerciseMax+3; i++ {
		x.send(fmt.Sprint("FDSTORE=1\nFDNAME=fill-", i), x.listener())
	}
	x.barrier()
	return x.err
}

// exercise goes on after an error without doing anything.
type exercise struct {
	socket string
	fds    []*sys.FD
	err    error
}

func (x *exercise) names() {
	x.send("FDSTORE=1\nFDNAME=plain", x.listener())
	x.send("FDSTORE=1\nFDNAME=with space/\"", x.listener())
	x.send("FDSTORE=1\nFDNAME="+longName, x.listener())
	x.send("FDSTORE=1\nFDNAME=", x.listener())
	x.send(`FDSTORE=1`+"\n"+`FDNAME=back\slash`, x.listener())
	// These two become "stored".
	x.send("FDSTORE=1\nFDNAME=a:b", x.listener())
	x.send("FDSTORE=1\nFDNAME="+longName+"n", x.listener())
	// This one is dropped whole.
	x.send("FDSTORE=1\nFDNAME=too-long\nX="+strings.Repeat("x", maxMessage), x.listener())
}

func (x *exercise) duplicates() {
	if len(x.fds) > 0 {
		x.send("FDSTORE=1\nFDNAME=another-name", x.fds[0])
	}
}

func (x *exercise) polling() {
	x.send("FDSTORE=1\nFDNAME=dropped", x.hungPipe())
	x.send("FDSTORE=1\nFDNAME=hung\nFDPOLL=0", x.hungPipe())
}

func (x *exercise) removal() {
	x.send("FDSTORE=1\nFDNAME=twice", x.listener())
	x.send("FDSTORE=1\nFDNAME=twice", x.listener())
	x.send("FDSTOREREMOVE=1\nFDNAME=twice", nil)
	x.send("FDSTOREREMOVE=1\nFDNAME=a:b", nil)
	x.send("FDSTOREREMOVE=1\nFDNAME=never-stored", nil)
}

func (x *exercise) bundle() {
	entries := make([]fdstore.Named, ExerciseBundle)
	fd := x.listener()
	for i := range entries {
		entries[i] = fdstore.Named{Name: fmt.Sprint("bundled-", i), FD: fd}
	}
	if x.err != nil {
		return
	}
	bundle, err := fdstore.NewBundle(entries)
	x.keep(bundle, err)
	x.send("FDSTORE=1\nFDNAME=bundle\nFDPOLL=0", bundle)
}

// send borrows fd, which may be nil.
func (x *exercise) send(message string, fd *sys.FD) {
	if x.err != nil {
		return
	}
	var fds []int
	if fd != nil {
		fds = []int{fd.Num()}
	}
	x.err = sys.SendTo(x.socket, []byte(message), fds)
}

func (x *exercise) barrier() {
	if x.err != nil {
		return
	}
	store, err := fdstore.Open(x.socket)
	if err != nil {
		x.err = err
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	x.err = store.Barrier(ctx)
}

func (x *exercise) keep(fd *sys.FD, err error) *sys.FD {
	if err != nil {
		x.err = err
		return nil
	}
	x.fds = append(x.fds, fd)
	return fd
}

func (x *exercise) listener() *sys.FD {
	if x.err != nil {
		return nil
	}
	return x.keep(sys.OpenListener(sys.ListenSpec{Network: "tcp", Host: "127.0.0.1"}))
}

func (x *exercise) hungPipe() *sys.FD {
	if x.err != nil {
		return nil
	}
	r, w, err := sys.Pipe()
	if err == nil {
		w.Close()
	}
	return x.keep(r, err)
}
