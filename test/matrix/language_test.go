//go:build vm

package matrix

var rubyAndPerl = []*server{
	{
		name: "puma", version: "puma", preset: "puma", slow: true, keepLossless: true,
		files:  map[string]string{"/srv/@NAME@/config.ru": app("config.ru"), "/srv/@NAME@/config/puma.rb": app("puma.rb")},
		breaks: append(appModes("exit", "hang", "die"), sed("ignores the socket", "/srv/@NAME@/config/puma.rb", "s/@ADDR@/127.0.0.1:6999/", "does not listen")),
	},
	{
		name: "unicorn", version: "unicorn", quick: true, noKeep: true,
		toml: `[worker]
command   = ["/usr/bin/unicorn", "-c", "unicorn.rb", "config.ru"]
directory = "/srv/@NAME@"
sockets   = ["unicorn"]

[ready]
stable = "1s"

[drain]
divert = "none"
signal = "SIGQUIT"
` + listens("http", "@ADDR@"),
		files:  map[string]string{"/srv/@NAME@/config.ru": app("config.ru"), "/srv/@NAME@/unicorn.rb": app("unicorn.rb")},
		breaks: appModes("exit"),
	},
	{
		name: "starman", version: "starman", noKeep: true,
		toml: `[worker]
command = ["/usr/bin/starman", "--workers", "8", "--pid", "${dir}/pid", "/srv/@NAME@/app.psgi"]
sockets = ["starter"]

[drain]
signal = "SIGQUIT"
` + listens("http", "@ADDR@", "nonblock = false"),
		files: map[string]string{"/srv/@NAME@/app.psgi": app("app.psgi")},
	},
	{
		name: "starlet", version: "starlet", quick: true, noKeep: true,
		toml: `[worker]
command = ["/usr/bin/plackup", "-s", "Starlet", "--max-workers", "8", "/srv/@NAME@/app.psgi"]
sockets = ["starter"]

[drain]
signal = "SIGTERM"
` + listens("http", "@ADDR@", "nonblock = false"),
		files: map[string]string{"/srv/@NAME@/app.psgi": app("app.psgi")},
	},
}

var programs = []*server{
	{
		name: "node", version: "nodejs", preset: "node", slow: true,
		files:  map[string]string{"/srv/@NAME@/server.js": app("server.js")},
		breaks: appModes("exit", "hang", "die", "ignore"),
	},
	{
		name: "node-unix", title: "node on a Unix socket", version: "nodejs", preset: "node", slow: true, listen: "/srv/@NAME@/http.sock",
		files: map[string]string{"/srv/@NAME@/server.js": app("server.js")}, setup: ownDirectory,
	},
	{
		name: "fastify", title: "fastify (npm)", preset: "node", slow: true, fetch: fromNPM("fastify"), version: "=" + fastifyVersion, source: "npm's fastify",
		files:  map[string]string{"/srv/@NAME@/server.js": app("fastify.js")},
		breaks: appModes("exit", "hang", "die", "ignore"),
	},
	{
		name: "node-bind", title: "node (listens by itself)", version: "nodejs",
		toml: `[worker]
command = ["/usr/bin/node", "/srv/@NAME@/server.js"]
sockets = ["bind"]

[drain]
idle = "2s"
` + listens("http", "@ADDR@"),
		files: map[string]string{"/srv/@NAME@/server.js": app("bind.js")},
	},
	{
		name: "go", title: "Go net/http", version: "=1.26", own: true, preset: "go", slow: true, quick: true,
		note:   "a program that puts the socket into its epoll set (net.FileListener does) and then never accepts is taken for ready: nothing outside it can tell.",
		edit:   []string{`["/usr/local/bin/@NAME@"]`, `["/usr/local/bin/goserver", "/srv/@NAME@/mode"]`},
		breaks: appModes("exit", "hang", "die", "ignore"),
	},
	{
		name: "go-unix", title: "Go net/http on a Unix socket", version: "=1.26", own: true, preset: "go", slow: true, listen: "/srv/@NAME@/http.sock", setup: ownDirectory,
		edit: []string{`["/usr/local/bin/@NAME@"]`, `["/usr/local/bin/goserver", "/srv/@NAME@/mode"]`},
	},
	{
		name: "go-ipv6", title: "Go net/http on [::1]", version: "=1.26", own: true, preset: "go", slow: true, listen: "[::1]:@PORT@",
		edit: []string{`["/usr/local/bin/@NAME@"]`, `["/usr/local/bin/goserver", "/srv/@NAME@/mode"]`},
	},
	{
		name: "graceful", title: "Go with pkg/graceful", version: "=1.26", own: true, preset: "go", keepLossless: true,
		edit: []string{`["/usr/local/bin/@NAME@"]`, `["/usr/local/bin/graceful"]`},
	},
	{
		name: "einhorn", title: "Go net/http by Einhorn's variables", version: "=1.26", own: true, slow: true, quick: true,
		toml: `[worker]
command = ["/usr/local/bin/goserver", "/srv/@NAME@/mode"]
sockets = ["einhorn"]
` + listens("http", "@ADDR@"),
	},
	{
		name: "java", title: "Java inheritedChannel", version: "openjdk-21-jdk-headless", own: true, preset: "java", slow: true, noKeep: true,
		files:  map[string]string{"/srv/@NAME@/Server.java": app("Server.java")},
		setup:  `cd /srv/@NAME@ && javac Server.java && printf 'Main-Class: Server\n' > manifest && jar cfm server.jar manifest *.class`,
		breaks: appModes("exit", "hang", "die", "ignore"),
	},
	{
		name: "tomcat", version: "tomcat10", preset: "java", slow: true,
		edit: []string{`"-jar", "/srv/@NAME@/server.jar"`, `"-cp", "/usr/share/tomcat10/bin/bootstrap.jar:/usr/share/tomcat10/bin/tomcat-juli.jar", "-Dcatalina.home=/usr/share/tomcat10", "-Dcatalina.base=/srv/@NAME@", "org.apache.catalina.startup.Bootstrap", "start"`},
		files: map[string]string{
			"/srv/@NAME@/conf/server.xml":       app("tomcat.xml"),
			"/srv/@NAME@/conf/web.xml":          app("tomcat-web.xml"),
			"/srv/@NAME@/conf/context.xml":      `<Context><JarScanner scanClassPath="false" scanManifest="false"/></Context>`,
			"/srv/@NAME@/webapps/ROOT/page.jsp": `<%@ page contentType="text/plain" %><% if (request.getRequestURI().startsWith("/slow")) Thread.sleep(1000); %>pid=<%= ProcessHandle.current().pid() %>`,
		},
		setup:  "mkdir -p /srv/@NAME@/temp /srv/@NAME@/work /srv/@NAME@/logs; chown -R www-data: /srv/@NAME@",
		breaks: []breakage{sed("has a mistake in server.xml", "/srv/@NAME@/conf/server.xml", "s/<Engine/<Engin/", "server.xml")},
	},
	{
		name: "jwebserver", version: "openjdk-21-jdk-headless", abrupt: true,
		note: "it answers no request any more after SIGTERM: drain.idle is over before clients that ask every 10 ms pause.",
		toml: `[worker]
command = ["/usr/lib/jvm/java-21-openjdk-amd64/bin/jwebserver", "-b", "127.0.0.1", "-p", "@PORT@", "-d", "/srv/@NAME@", "-o", "none"]
sockets = ["bind"]

[ready]
timeout = "90s"

[drain]
idle = "2s"
` + listens("http", "@ADDR@"),
		files: map[string]string{"/srv/@NAME@/index.html": "hello\n"},
	},
	{
		name: "docker-registry", version: "docker-registry",
		toml: `[worker]
command = ["/usr/bin/docker-registry", "serve", "/srv/@NAME@/config.yml"]
sockets = ["bind"]
` + listens("http", "@ADDR@"),
		files: map[string]string{"/srv/@NAME@/config.yml": "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  inmemory: {}\nhttp:\n  addr: @ADDR@\n  draintimeout: 20s\n"},
	},
}
