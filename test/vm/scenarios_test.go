//go:build vm

package vm

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestScenarios(t *testing.T) { runScenarios(t) }
