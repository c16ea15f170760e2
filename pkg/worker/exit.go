package worker

import (
	"strconv"

	"github.com/8265a91a/supervisor/internal/sys"
)

// Exit is how a process ended.
type Exit = sys.Exit

// ExitString puts e in words: "exit code 3", "killed by SIGKILL".
func ExitString(e Exit) string {
	switch {
	case !e.Known:
		return "ended (its status is unknown: it was not our child)"
	case e.Signal != 0:
		return "killed by " + sys.SignalName(e.Signal)
	}
	return "exit code " + strconv.Itoa(e.Code)
}
