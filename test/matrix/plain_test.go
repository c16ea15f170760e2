//go:build !vm

package matrix

import (
	"os"
	"testing"

	"github.com/8265a91a/supervisor/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }
