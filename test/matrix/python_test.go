//go:build vm

package matrix

var (
	wsgi = map[string]string{"/srv/@NAME@/app.py": app("wsgi.py"), "/srv/@NAME@/mode.py": app("mode.py")}
	asgi = map[string]string{"/srv/@NAME@/app.py": app("asgi.py"), "/srv/@NAME@/mode.py": app("mode.py")}
)

// with adds a file.
func with(files map[string]string, path, content string) map[string]string {
	all := map[string]string{path: content}
	for p, c := range files {
		all[p] = c
	}
	return all
}

// python runs main.py with the socket's descriptor.
func python(sockets, signal string) string {
	return `[worker]
command   = ["/usr/bin/python3", "main.py", "${fd:http}"]
directory = "/srv/@NAME@"
sockets   = ["` + sockets + `"]

[ready]
stable = "500ms"

[drain]
idle   = "2s"
signal = "` + signal + `"
` + listens("http", "@ADDR@")
}

var pythonServers = []*server{
	{
		name: "gunicorn", title: "gunicorn (sync)", version: "gunicorn", preset: "gunicorn", noKeep: true, files: wsgi,
		breaks: append(appModes("exit"), breakage{kind: hangs, what: hangs, how: "echo hang > /srv/@NAME@/mode", mend: "rm /srv/@NAME@/mode", words: []string{"no result"}}),
	},
	{
		name: "gunicorn-unix", title: "gunicorn (gthread) on a Unix socket", version: "gunicorn", preset: "gunicorn", slow: true, listen: "/srv/@NAME@/http.sock", files: wsgi, setup: ownDirectory,
		edit: []string{`"--workers", "2"`, `"--workers", "2", "--threads", "16"`},
	},
	{
		name: "gunicorn-threads", title: "gunicorn (gthread)", version: "gunicorn", preset: "gunicorn", slow: true, files: wsgi,
		edit:   []string{`"--workers", "2"`, `"--workers", "2", "--threads", "16"`},
		breaks: appModes("exit"),
	},
	{
		name: "uvicorn", version: "uvicorn", preset: "uvicorn", slow: true, quick: true, files: asgi,
		breaks: appModes("exit", "hang", "die"),
	},
	{
		name: "uvicorn-unix", title: "uvicorn on a Unix socket", version: "uvicorn", preset: "uvicorn", slow: true, listen: "/srv/@NAME@/http.sock", files: asgi, setup: ownDirectory,
	},
	{
		name: "hypercorn", version: "python3-hypercorn", preset: "uvicorn", slow: true, files: asgi,
		edit:   []string{`"/usr/bin/uvicorn", "--fd", "${fd:http}"`, `"/usr/bin/python3", "-m", "hypercorn", "-b", "fd://${fd:http}"`},
		breaks: appModes("exit"),
	},
	{
		name: "daphne", version: "python3-daphne", preset: "uvicorn", slow: true, files: asgi,
		edit:   []string{`"/usr/bin/uvicorn"`, `"/usr/bin/python3", "-m", "daphne"`},
		breaks: appModes("exit"),
	},
	{
		name: "uwsgi", version: "uwsgi-core", preset: "uwsgi", noKeep: true, files: wsgi,
		breaks: appModes("exit", "hang"),
	},
	{name: "waitress", version: "python3-waitress", slow: true, toml: python("argv", "SIGTERM"), files: with(wsgi, "/srv/@NAME@/main.py", app("waitress_main.py"))},
	{name: "cheroot", version: "python3-cheroot", slow: true, toml: python("systemd", "SIGTERM"), files: with(wsgi, "/srv/@NAME@/main.py", app("cheroot_main.py"))},
	{name: "tornado", version: "python3-tornado", slow: true, toml: python("argv", "SIGTERM"), files: map[string]string{"/srv/@NAME@/main.py": app("tornado_main.py")}},
	{name: "aiohttp", version: "python3-aiohttp", slow: true, toml: python("argv", "SIGTERM"), files: map[string]string{"/srv/@NAME@/main.py": app("aiohttp_main.py")}},
	{
		name: "twisted", version: "python3-twisted",
		toml: `[worker]
command = ["/usr/bin/twistd3", "-n", "--pidfile=${dir}/pid", "web", "--listen", "systemd:domain=INET:index=0", "--path", "/srv/@NAME@"]

[drain]
idle   = "2s"
signal = "SIGTERM"
` + listens("http", "@ADDR@"),
		files: map[string]string{"/srv/@NAME@/index.html": "hello\n"},
	},
	{
		name: "http.server", title: "python -m http.server", version: "python3",
		toml: `[worker]
command = ["/usr/bin/python3", "-m", "http.server", "@PORT@", "--bind", "127.0.0.1", "--directory", "/srv/@NAME@"]
sockets = ["bind"]

[drain]
idle   = "2s"
signal = "SIGINT"
` + listens("http", "@ADDR@"),
		files: map[string]string{"/srv/@NAME@/index.html": "hello\n"}, noKeep: true,
	},
}
