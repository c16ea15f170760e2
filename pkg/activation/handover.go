package activation

import (
	"fmt"
	"strconv"

	"github.com/8265a91a/supervisor/internal/sys"
	"github.com/8265a91a/supervisor/pkg/fdstore"
)

// Named is a descriptor with its name and what else must be known about it.
type Named = fdstore.Named

// Handover bundles entries, whose descriptors are borrowed, into a descriptor that survives the next execve, and
// returns the environment variable (KEY=value) by which [Take] finds it there. If execve fails the caller closes the
// bundle; until then it must start no child, which would inherit it.
func Handover(entries []Named) (variable string, bundle *FD, err error) {
	bundle, err = fdstore.NewBundle(entries)
	if err != nil {
		return "", nil, fmt.Errorf("hand descriptors over: %w", err)
	}
	if err := sys.ClearCloseOnExec(bundle.Num()); err != nil {
		bundle.Close()
		return "", nil, fmt.Errorf("hand descriptors over: %w", err)
	}
	return HandoverVariable + "=" + strconv.Itoa(bundle.Num()), bundle, nil
}

// takeHandover opens the bundle that value names. A bundle that cannot be read is returned itself, under the name of
// the variable, because closing it would lose what it holds.
func takeHandover(value string) ([]Descriptor, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < firstListenFD {
		return nil, lost("%s=%q is not a descriptor: nothing is taken over", HandoverVariable, value)
	}
	cloexec, err := sys.CloseOnExec(n)
	if err != nil {
		return nil, lost("%s=%d: %w", HandoverVariable, n, err)
	}
	if cloexec {
		return nil, lost("%s=%d is close-on-exec, so it was not passed: left alone", HandoverVariable, n)
	}
	bundle, err := own(n, HandoverVariable)
	if err != nil {
		return []Descriptor{bundle}, err
	}
	entries, err := fdstore.ReadBundle(bundle.FD)
	if err != nil {
		return []Descriptor{bundle}, lost("%s=%d: %w", HandoverVariable, n, err)
	}
	defer bundle.FD.Close()
	descriptors := make([]Descriptor, len(entries))
	for i, e := range entries {
		// A kind that cannot be found out is KindOther, which is what the caller can do with it: nothing.
		kind, _ := sys.KindOf(e.FD.Num())
		descriptors[i] = Descriptor{Name: e.Name, Meta: e.Meta, FD: e.FD, Kind: kind}
	}
	return descriptors, nil
}
