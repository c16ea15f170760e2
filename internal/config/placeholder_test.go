package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/8265a91a/supervisor/internal/config"
)

var values = &config.Values{
	Sockets: map[string]config.SocketValue{
		"http":    {FD: 3, Addr: "127.0.0.1:8080", Host: "127.0.0.1", Port: "8080"},
		"my sock": {FD: 4, Addr: "/run/my.sock", Path: "/run/my.sock"},
	},
	Getsocks: "/run/web/getsocks.sock", GetsocksFD: 5, Generation: 7, Slot: 1,
	Dir: "/run/web/7", Runtime: "/run/web", Name: "web",
}

func TestExpand(t *testing.T) {
	for s, want := range map[string]string{
		"":                             "",
		"plain":                        "plain",
		"${fd:http}":                   "3",
		"fd@${fd:my sock}":             "fd@4",
		"${addr:http}=${fd:http};":     "127.0.0.1:8080=3;",
		"${host:http} ${port:http}":    "127.0.0.1 8080",
		"${path:my sock}":              "/run/my.sock",
		"${host:my sock}":              "",
		"${getsocks} ${getsocks_fd}":   "/run/web/getsocks.sock 5",
		"${generation}/${slot}":        "7/1",
		"${dir} ${runtime} ${name}":    "/run/web/7 /run/web web",
		"--pid=${pid}":                 "--pid=${pid}",
		"$ $$ $HOME $(x) $1 100%}{ $":  "$ $$ $HOME $(x) $1 100%}{ $",
		"$$${slot}$":                   "$$1$",
		"${slot}${slot}":               "11",
		"{${name}}":                    "{web}",
		"${dir}/${generation}.pid äöü": "/run/web/7/7.pid äöü",
	} {
		if got, err := config.Expand(s, values); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", s, got, err, want)
		}
	}
}

func TestExpandOfNothing(t *testing.T) {
	got, err := config.Expand("${dir}|${getsocks}|${getsocks_fd}|${generation}|${pid}", &config.Values{})
	if want := "||0|0|${pid}"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestExpandIsNotRepeated(t *testing.T) {
	got, err := config.Expand("${dir}", &config.Values{Dir: "/${name}", Name: "web"})
	if err != nil || got != "/${name}" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestExpandMistakes(t *testing.T) {
	for s, want := range map[string]string{
		"${fd:htp}":       `unknown socket "htp" in ${fd:htp} (the sockets are "http", "my sock")`,
		"${path:http}":    `socket "http" (127.0.0.1:8080) has no path for ${path:http}`,
		"${port:my sock}": `socket "my sock" (/run/my.sock) has no port for ${port:my sock}`,
		"${":              `"${" is not closed with } ("${" always begins a placeholder)`,
		"${dir":           `"${dir" is not closed with } ("${" always begins a placeholder)`,
		"${}":             `unknown placeholder ${} (known are addr, dir, fd, generation, getsocks, getsocks_fd, host, name, path, pid, port, runtime, slot)`,
		"${runtme}":       `unknown placeholder ${runtme} (did you mean "runtime"?)`,
		"${ dir}":         `unknown placeholder ${ dir} (did you mean "dir"?)`,
		"${fd}":           `placeholder ${fd} names no socket (write ${fd:NAME})`,
		"${fd:}":          `placeholder ${fd:} names no socket (write ${fd:NAME})`,
		"${slot:x}":       `placeholder ${slot:x} takes no name (write ${slot})`,
		"${pid:}":         `placeholder ${pid:} takes no name (write ${pid})`,
		"${fd:a:b}":       `placeholder ${fd:a:b}: name "a:b" holds ':' (printable ASCII without ":" and "\")`,
	} {
		if got, err := config.Expand(s, values); err == nil || err.Error() != want || got != "" {
			t.Errorf("%q: got %q, %v\nwant %s", s, got, err, want)
		}
	}
	_, err := config.Expand("${fd:http}", &config.Values{})
	if want := `unknown socket "http" in ${fd:http} (there are no sockets)`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestPlaceholders(t *testing.T) {
	got, err := config.Placeholders("a ${fd:my sock} $ ${pid}${pid} }")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"fd:my sock", "pid", "pid"}, got); diff != "" {
		t.Error(diff)
	}
	if got, err := config.Placeholders("none"); got != nil || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := config.Placeholders("${x}"); err == nil {
		t.Error("an unknown placeholder was accepted")
	}
}

func TestUsesPID(t *testing.T) {
	if config.UsesPID() || config.UsesPID("a", "$pid", "{pid}") || !config.UsesPID("a", "x${pid}y") {
		t.Error("UsesPID is wrong")
	}
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"${fd:http}", "$$${slot}", "${", "${}", "${pid}", "${a${dir}}", "${fd:a:b}", "}${name}{"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, syntax := config.Placeholders(s)
		got, err := config.Expand(s, values)
		switch {
		case syntax != nil && (err == nil || err.Error() != syntax.Error()):
			t.Fatalf("%q: Placeholders says %v, Expand %v", s, syntax, err)
		case err == nil && len(list) == 0 && got != s:
			t.Fatalf("%q has no placeholder and became %q", s, got)
		case err == nil && strings.Contains(strings.ReplaceAll(got, "${pid}", ""), "${") && !strings.Contains(s, "${pid}"):
			t.Fatalf("%q left a placeholder in %q", s, got)
		}
	})
}
