package fdstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"syscall"

	"github.com/8265a91a/supervisor/internal/sys"
)

// Named is a descriptor with its name and what else must be known about it.
type Named struct {
	Name string
	Meta string
	FD   *FD
}

// A bundle is the receiving end of a SOCK_SEQPACKET pair whose other end is closed. Its queue holds one message with
// the manifest (a sealed memfd), then messages of up to perMessage descriptors in the order of the manifest. Payloads
// are tiny so that tens of thousands of descriptors fit into the default send buffer. Nothing is ever taken out of the
// queue: reading is peeking, so a reader that dies half-way has lost nothing.
const (
	perMessage   = 250
	firstPayload = "supervisor bundle 1"
	morePayload  = "+"
	maxManifest  = 64 << 20
)

type manifestEntry struct {
	Name string `json:"name"`
	Meta string `json:"meta,omitempty"`
}

// NewBundle returns one descriptor that holds duplicates of all entries, whose descriptors are borrowed. The caller
// closes it. It goes into the FD store as one entry, which must not be pollable: a bundle always reports EPOLLHUP.
//
// All descriptors of a bundle are in flight in the sense of unix(7): without CAP_SYS_RESOURCE or CAP_SYS_ADMIN the
// user may have no more of them, all its bundles together, than RLIMIT_NOFILE says (ETOOMANYREFS).
func NewBundle(entries []Named) (*FD, error) {
	bundle, err := newBundle(entries)
	if errors.Is(err, syscall.ETOOMANYREFS) {
		return nil, fmt.Errorf("bundle %d descriptors: the user has too many in flight, raise LimitNOFILE=: %w", len(entries), err)
	}
	if err != nil {
		return nil, fmt.Errorf("bundle %d descriptors: %w", len(entries), err)
	}
	return bundle, nil
}

func newBundle(entries []Named) (*FD, error) {
	list := make([]manifestEntry, len(entries))
	for i, e := range entries {
		list[i] = manifestEntry{Name: e.Name, Meta: e.Meta}
	}
	text, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	if len(text) > maxManifest {
		return nil, fmt.Errorf("names take %d bytes, more than the %d allowed", len(text), maxManifest)
	}
	manifest, err := sys.SealedMemfd("supervisor-bundle", text)
	if err != nil {
		return nil, err
	}
	defer manifest.Close()
	r, w, err := sys.Socketpair(syscall.SOCK_SEQPACKET)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if err := fill(w, manifest, entries); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func fill(w, manifest *FD, entries []Named) error {
	if err := sys.SendRights(w, []byte(firstPayload), []int{manifest.Num()}); err != nil {
		return err
	}
	for len(entries) > 0 {
		n := min(len(entries), perMessage)
		fds := make([]int, n)
		for i, e := range entries[:n] {
			fds[i] = e.FD.Num()
		}
		if err := sys.SendRights(w, []byte(morePayload), fds); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// ReadBundle returns duplicates of everything in the borrowed bundle, in order; the caller closes them. The bundle
// keeps what it holds and can be read again, also by another process after this one has died in the middle. All or
// nothing: on an error no descriptor stays open. Only one goroutine or process may read a bundle at a time.
func ReadBundle(bundle *FD) ([]Named, error) {
	entries, err := readBundle(bundle)
	if err != nil {
		for _, e := range entries {
			e.FD.Close()
		}
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	return entries, nil
}

// readBundle returns what it had opened also with an error, for the caller to close.
func readBundle(bundle *FD) ([]Named, error) {
	if err := sys.SetPeekOffset(bundle.Num(), 0); err != nil {
		return nil, err
	}
	defer sys.SetPeekOffset(bundle.Num(), -1)
	list, err := readManifest(bundle)
	if err != nil {
		return nil, err
	}
	var entries []Named
	buf := make([]byte, len(morePayload)+1)
	for len(entries) < len(list) {
		m, err := sys.ReceiveRights(bundle, buf, true)
		if err != nil {
			return entries, fmt.Errorf("descriptor %d of %d: %w", len(entries)+1, len(list), err)
		}
		if string(buf[:m.N]) != morePayload || len(m.FDs) == 0 || len(entries)+len(m.FDs) > len(list) {
			sys.CloseAll(m.FDs)
			return entries, fmt.Errorf("message after descriptor %d of %d is not a bundle's", len(entries), len(list))
		}
		for _, fd := range m.FDs {
			e := list[len(entries)]
			entries = append(entries, Named{Name: e.Name, Meta: e.Meta, FD: fd})
		}
	}
	return entries, nil
}

func readManifest(bundle *FD) ([]manifestEntry, error) {
	buf := make([]byte, len(firstPayload)+1)
	m, err := sys.ReceiveRights(bundle, buf, true)
	if err != nil {
		return nil, err
	}
	defer sys.CloseAll(m.FDs)
	if string(buf[:m.N]) != firstPayload || len(m.FDs) != 1 {
		return nil, errors.New("socket is not a bundle")
	}
	text, err := sys.ReadMemfd(m.FDs[0].Num(), maxManifest)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	var list []manifestEntry
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return list, nil
}
