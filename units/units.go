// Package units holds the systemd units and presets that the binary carries: the service's template, drop-ins that
// harden it in two grades, and for each known server what "supervisor init" writes.
//
// A preset is a directory of presets: about.toml says what it is for, which sockets it needs and what it cannot
// promise (see Preset); service.toml becomes NAME.toml; dropin.conf, where it is there, becomes a drop-in of
// supervisor@NAME.service. In all of them @NAME@ stands for the service's name; a line with @SOCKET@, @NETWORK@, @LISTEN@, @HOST@ or
// @PORT@ is there once for each address.
package units

import "embed"

// Files are the units, hardening drop-ins, presets and examples.
//
//go:embed supervisor@.service hardening presets examples
var Files embed.FS
