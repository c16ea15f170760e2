//go:build vm

package matrix

import (
	"embed"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/8265a91a/supervisor/test/load"
	"github.com/8265a91a/supervisor/test/vm"
)

// server is a row: how a server is set up, spoken to and broken. In its texts @NAME@ is the name of the service,
// @PORT@ its port and @ADDR@ 127.0.0.1 with the port.
type server struct {
	name string
	// title is what the table says, default name; version is a Debian package, or a literal that begins with "=".
	title, version string
	// quick servers are the ones of the quick run.
	quick bool
	// preset is for "supervisor init"; without one toml and dropin are what is written.
	preset       string
	toml, dropin string
	// edit are replacements in what the preset wrote: pairs of old and new.
	edit []string
	// files and then a script set the server up.
	files map[string]string
	setup string
	// script is what is spoken in the place of HTTP, udp what is sent in datagrams too.
	script, udp []load.Step
	tls         bool
	// noKeep: one request a connection. keepLossless: no kept connection may be lost either.
	noKeep, keepLossless bool
	// slow: /slow takes a second, and is asked for too.
	slow   bool
	note   string
	breaks []breakage
}

// breakage is a way in which the next generation does not work.
type breakage struct {
	what string
	// how breaks it and mend repairs it (scripts).
	how, mend string
	// words are in the message.
	words []string
}

//go:embed apps
var apps embed.FS

// app is a file of apps.
func app(name string) string {
	text, err := apps.ReadFile("apps/" + name)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// listens is the tail of a configuration without preset.
func listens(name, listen string, more ...string) string {
	return "\n[[socket]]\nname = \"" + name + "\"\nlisten = \"" + listen + "\"\n" + strings.Join(more, "\n") + "\n"
}

// appModes are the ways in which an application of apps misbehaves, by the file mode beside it.
func appModes(modes ...string) (list []breakage) {
	words := map[string][]string{
		"exit":   {"no database"},
		"hang":   {"does not listen"},
		"die":    {"exit"},
		"ignore": {"does not listen"},
	}
	names := map[string]string{
		"exit": "exits", "hang": "hangs", "die": "ready, then dies", "ignore": "ignores the socket",
	}
	for _, mode := range modes {
		list = append(list, breakage{names[mode], "echo " + mode + " > /srv/@NAME@/mode", "rm /srv/@NAME@/mode", words[mode]})
	}
	return list
}

// rubyModes are appModes whose message comes before a trace that is longer than what is quoted.
func rubyModes(modes ...string) []breakage {
	list := appModes(modes...)
	for i := range list {
		if list[i].what == "exits" {
			list[i].words = []string{"ended before it was ready"}
		}
	}
	return list
}

// sed breaks a configuration file by a substitution.
func sed(what, file, expression string, words ...string) breakage {
	return breakage{what, "cp -a " + file + " " + file + ".good; sed -i '" + expression + "' " + file + "; ! cmp -s " + file + " " + file + ".good", "mv " + file + ".good " + file, words}
}

// installPrograms builds the programs of this tree that are servers of the matrix.
func installPrograms(t *testing.T, m *vm.Machine) {
	dir := t.TempDir()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for name, pkg := range map[string]string{"goserver": "./test/matrix/goserver", "graceful": "./examples/http"} {
		cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, name), pkg)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, out)
		}
		m.InstallBinary(filepath.Join(dir, name), "/usr/local/bin/"+name)
	}
}

// expand fills in name and address.
func expand(text, name string, port int) string {
	p := strconv.Itoa(port)
	return strings.NewReplacer("@NAME@", name, "@PORT@", p, "@ADDR@", "127.0.0.1:"+p).Replace(text)
}
