package fdstore

import (
	"errors"
	"fmt"
)

// maxName is systemd's FDNAME_MAX.
const maxName = 255

// ValidName reports whether systemd stores and returns name as it is: 1 to 255 bytes of printable ASCII without ':'
// (the separator of LISTEN_FDNAMES) and '\' (eaten by systemd's parser). systemd stores a descriptor with any other
// name under "stored". The empty name, which systemd accepts, is refused: it says nothing.
func ValidName(name string) error {
	switch {
	case name == "":
		return errors.New("descriptor name is empty")
	case len(name) > maxName:
		return fmt.Errorf("descriptor name is %d bytes long, more than the %d allowed", len(name), maxName)
	}
	for i := range len(name) {
		if c := name[i]; c < 0x20 || c > 0x7e || c == ':' || c == '\\' {
			return fmt.Errorf("descriptor name %q contains %q, which systemd does not keep", name, c)
		}
	}
	return nil
}
