// Command rules is a service for test/vm: its first start exercises the FD store
// of the real service manager, the second one fills it up, the third one writes
// what it was given to the file that is its argument.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/8265a91a/supervisor/internal/fdstoretest"
	"github.com/8265a91a/supervisor/pkg/activation"
	"github.com/8265a91a/supervisor/pkg/fdstore"
)

// Report is what the third start was given.
type Report struct {
	Names   []string
	Bundled int
	Max     int
	Errors  []string
}

func main() {
	if err := run(os.Args[1], os.Getenv("NOTIFY_SOCKET")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// The service manager ends it with a signal.
	for {
		time.Sleep(time.Hour)
	}
}

func run(path, socket string) error {
	given, errs := activation.Take()
	var err error
	switch len(given.Descriptors) {
	case 0:
		err = fdstoretest.Exercise(socket)
	case fdstoretest.ExerciseMax:
		err = write(path, given, errs)
	default:
		err = fdstoretest.Fill(socket)
	}
	if err != nil {
		return err
	}
	store, err := fdstore.Open(socket)
	if err != nil {
		return err
	}
	return store.Notify("READY=1")
}

func write(path string, given activation.Result, errs []error) error {
	r := Report{Max: given.StoreMax}
	for _, err := range errs {
		r.Errors = append(r.Errors, err.Error())
	}
	for _, d := range given.Descriptors {
		r.Names = append(r.Names, d.Name)
		if d.Name != "bundle" {
			continue
		}
		entries, err := fdstore.ReadBundle(d.FD)
		if err != nil {
			r.Errors = append(r.Errors, err.Error())
		}
		r.Bundled = len(entries)
	}
	slices.Sort(r.Names)
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}
