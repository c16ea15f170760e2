package main

import (
	"fmt"

	"github.com/8265a91a/supervisor/internal/text"
)

// suggest returns a hint that names the known word nearest to what was written, or otherwise if none is near.
func suggest(written string, known []string, otherwise string) string {
	if best := text.Nearest(written, known); best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return otherwise
}
