//go:build vm

package matrix

import (
	"cmp"
	"embed"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/8265a91a/supervisor/internal/config"
	"github.com/8265a91a/supervisor/test/load"
	"github.com/8265a91a/supervisor/test/vm"
)

// server is a row: how a server is set up, spoken to and broken. In its texts @NAME@ is the name of the service,
// @PORT@ its port and @ADDR@ what it listens on.
type server struct {
	name string
	// title is what the table says, default name; version is a Debian package, or a literal that begins with "=".
	title, version string
	// source is the package of a server that is not Debian's; own says that it is a program of this tree.
	source string
	own    bool
	// listen is an address or the path of a Unix socket, default 127.0.0.1:@PORT@.
	listen string
	// root is the root file system, default trixie/matrix.
	root string
	// quick servers are the ones of the quick run.
	quick bool
	// preset is for "supervisor init"; without one toml and dropin are what is written.
	preset       string
	toml, dropin string
	// edit are replacements in what the preset wrote: pairs of old and new.
	edit []string
	// fetch brings what no package of the root has. files and then a script set the server up.
	fetch func(m *vm.Machine, t *testing.T)
	files map[string]string
	setup string
	// script is what is spoken in the place of HTTP, udp what is sent in datagrams too.
	script, udp []load.Step
	tls         bool
	// noKeep: one request a connection. keepLossless: none of the kept connections may be closed either. abrupt: the
	// server ends without finishing the requests of kept connections.
	noKeep, keepLossless, abrupt bool
	// most is the number of requests after which the server ends a kept connection by itself, without saying so.
	most int64
	// slow: /slow takes a second, and is asked for too.
	slow   bool
	note   string
	breaks []breakage
}

// breakage is a way in which the next generation does not work.
type breakage struct {
	// kind is one of kinds, or empty for a mistake that is found before anything runs.
	kind, what string
	// how breaks it and mend repairs it (scripts). With command, that is run in the place of the server instead.
	how, mend string
	command   []string
	// patience is ready.timeout, default 5s.
	patience string
	// words are in the message.
	words []string
	// takes: the newcomer may take with it the connections that it had accepted.
	takes bool
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
	known := map[string]breakage{
		"exit":   {kind: exits, patience: "20s", words: []string{"no database"}},
		"hang":   {kind: hangs, words: []string{"does not listen"}},
		"die":    {kind: dies, patience: "20s", words: []string{"was ready, but not for", "exit code 7"}},
		"ignore": {kind: ignores, words: []string{"does not listen"}},
	}
	for _, mode := range modes {
		b := known[mode]
		b.what, b.how, b.mend = b.kind, "echo "+mode+" > /srv/@NAME@/mode", "rm /srv/@NAME@/mode"
		list = append(list, b)
	}
	return list
}

// breakages are the server's own, and those of another program in its place for the kinds that it cannot have.
func (r *rig) breakages() []breakage {
	list := r.s.breaks
	if r.s.preset == "" {
		return list
	}
	for _, kind := range allKinds {
		if !slices.ContainsFunc(list, func(b breakage) bool { return b.kind == kind }) {
			list = append(slices.Clip(list), r.otherProgram(kind))
		}
	}
	return list
}

// otherProgram is a worker of this tree that takes the sockets as the server is given them and misbehaves. The settings of
// the preset stay.
func (r *rig) otherProgram(kind string) breakage {
	b := breakage{kind: kind, what: "another program that " + kind, command: []string{"/usr/bin/worker"}, patience: "2s"}
	silent := "does not listen"
	if slices.Contains(r.configured.Ready.When, config.ReadyHAProxy) {
		silent = "admin.sock"
	}
	switch kind {
	case exits:
		b.command = append(b.command, "-stderr=cannot reach the database", "-exit=7")
		b.words = []string{"exit code 7", "cannot reach the database"}
	case hangs:
		b.command = append(b.command, "-stderr=waiting for the database", "-hang")
		b.words = []string{"was not ready after 2s", "waiting for the database"}
	case dies:
		b.what = "another program that says ready, then dies"
		b.command = append(append(b.command, "-stderr=this will not last", "-ready-then-die=300ms"), r.takes()...)
		b.words, b.patience = []string{"was ready, but not for", "exit code 1", "this will not last"}, "20s"
		// Where the old one is gone, or shares the socket, it has connections by then.
		b.takes = r.signalFirst() || r.s.network() == "unix"
	case ignores:
		b.command = append(b.command, "-stderr=listening elsewhere", "-ignore-sockets")
		b.words = []string{silent, "listening elsewhere"}
	}
	return b
}

// takes are the arguments by which test/worker serves the sockets.
func (r *rig) takes() (list []string) {
	cfg := r.configured
	bind := slices.Contains(cfg.Worker.Conventions, config.ConventionBind)
	if slices.Contains(cfg.Worker.Conventions, config.ConventionSystemd) {
		return nil
	}
	for _, s := range r.held() {
		if bind {
			list = append(list, "-bind="+s.Network+":"+s.Address)
		} else {
			list = append(list, "-fd=${fd:"+s.Name+"}")
		}
	}
	return list
}

// ownDirectory lets the user of a service bind a Unix socket beside its files.
const ownDirectory = "chown www-data: /srv/@NAME@"

// sed breaks a configuration file by a substitution.
func sed(what, file, expression string, words ...string) breakage {
	b := breakage{what: what, words: words}
	if strings.HasPrefix(what, ignores) {
		b.kind = ignores
	}
	b.how = "cp -a " + file + " " + file + ".good; sed -i '" + expression + "' " + file + "; ! cmp -s " + file + " " + file + ".good"
	b.mend = "mv " + file + ".good " + file
	return b
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

// network is what clients speak over.
func (s *server) network() string {
	if strings.HasPrefix(s.listen, "/") {
		return "unix"
	}
	return "tcp"
}

// expand fills in name and address.
func (s *server) expand(text string, port int) string {
	listen := cmp.Or(s.listen, "127.0.0.1:@PORT@")
	return strings.NewReplacer("@NAME@", s.name, "@PORT@", strconv.Itoa(port)).Replace(strings.ReplaceAll(text, "@ADDR@", listen))
}
