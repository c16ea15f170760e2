package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set at link time; without that the module's version and the commit are taken from the build.
var version string

var versionCommand = command{
	name:    "version",
	summary: "print the version",
	usage:   "usage: supervisor version\n\nPrints the version, the commit it was built from, and the Go release and system it was built with and for.\n",
	prepare: func(*flags) func(*env, []string) error {
		return func(e *env, operands []string) error {
			if len(operands) > 0 {
				return usageError{"version takes no arguments", ""}
			}
			fmt.Fprintf(e.stdout, "supervisor %s (%s, %s/%s)\n", programVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		}
	},
}

// programVersion is the version with the commit where they are known, else "unknown".
func programVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	text := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 && (text == "" || text == "(devel)") {
			text = "commit " + s.Value[:12]
		}
	}
	if text == "" {
		return "unknown"
	}
	return text
}
