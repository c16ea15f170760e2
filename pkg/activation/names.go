package activation

import (
	"fmt"
	"strings"
)

// names returns the name of each of count descriptors, or nil when none can be trusted.
func (e environment) names(count int) ([]string, error) {
	value, ok := e.lookup("LISTEN_FDNAMES")
	if !ok || count == 0 || count > maxListenFDs {
		return nil, nil
	}
	names := strings.Split(value, ":")
	if len(names) == count {
		return names, nil
	}
	if joined := joinUnitNames(names); len(joined) == count {
		return joined, nil
	}
	return nil, fmt.Errorf("LISTEN_FDNAMES has %d names for %d descriptors: all are called %q", len(names), count, Unknown)
}

// joinUnitNames puts unit names together again whose instance holds the separator: systemd passes the socket of
// "tp@a:b.socket" under that name, which looks like the two names "tp@a" and "b.socket".
func joinUnitNames(names []string) []string {
	var joined []string
	for i := 0; i < len(names); i++ {
		name := names[i]
		if strings.Contains(name, "@") && !strings.HasSuffix(name, ".socket") {
			for j := i + 1; j < len(names); j++ {
				if strings.HasSuffix(names[j], ".socket") {
					name = strings.Join(names[i:j+1], ":")
					i = j
					break
				}
			}
		}
		joined = append(joined, name)
	}
	return joined
}
