//go:build vm

package matrix

var webServers = []*server{
	{
		name: "haproxy", version: "haproxy", preset: "haproxy", quick: true, keepLossless: true, slow: true,
		files: map[string]string{"/etc/haproxy/haproxy.cfg": `global
    stats socket /run/supervisor/@NAME@/admin.sock mode 600 level admin expose-fd listeners
    nbthread 2
defaults
    mode http
    option idle-close-on-response
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend web
    bind @ADDR@
    http-request return status 200 content-type text/plain lf-string "pid=%pid\n" unless { path /slow }
    default_backend slow
backend slow
    server backend 127.0.0.1:7000
`},
		breaks: []breakage{
			sed("has a mistake in haproxy.cfg", "/etc/haproxy/haproxy.cfg", "s/timeout connect/timeout conect/", "conect"),
			sed("cannot bind another address", "/etc/haproxy/haproxy.cfg", "s/bind @ADDR@/bind @ADDR@,192.0.2.1:80/", "192.0.2.1"),
			// No other program is ready here: it is a HAProxy that dies soon after its CLI has answered.
			{
				kind: dies, what: dies, patience: "20s", words: []string{"was ready, but not for", "exit code 7"}, takes: true,
				command: []string{"/bin/sh", "-c", `/usr/sbin/haproxy -db -f /etc/haproxy/haproxy.cfg -x sockpair@${getsocks_fd} & p=$!
until echo show info | socat - UNIX:/run/supervisor/@NAME@/admin.sock | grep -qx "Pid: $p"; do sleep 0.02; done
sleep 0.2; kill -9 $p; exit 7`},
			},
		},
		note: "both generations share the sockets, so one that dies after it was ready takes with it what it had accepted. Nothing is refused.",
	},
	{
		name: "nginx", version: "nginx", preset: "nginx", quick: true,
		files: map[string]string{"/etc/nginx/nginx.conf": `user www-data;
worker_processes 2;
error_log stderr;
events { worker_connections 1024; }
http {
    access_log off;
    server {
        listen @ADDR@;
        location / { return 200 "pid=$pid\n"; }
        location /slow { proxy_pass http://127.0.0.1:7000; }
    }
}
`},
		slow: true,
		breaks: []breakage{
			sed("has a mistake in nginx.conf", "/etc/nginx/nginx.conf", "s/access_log/acces_log/", "acces_log"),
			sed("ignores the socket", "/etc/nginx/nginx.conf", "s/listen @ADDR@/listen 127.0.0.1:6999/", "does not listen"),
		},
	},
	{
		name: "caddy", title: "caddy (Go module)", version: "=" + caddyVersion, source: "the Go module caddy", preset: "caddy", slow: true, fetch: fromGo("github.com/caddyserver/caddy/v2/cmd/caddy@v"+caddyVersion, "/usr/bin/caddy"),
		files: map[string]string{"/etc/caddy/Caddyfile": `{
    admin off
    persist_config off
    auto_https off
    grace_period 10s
}
http://:@PORT@ {
    bind fd/3
    handle /slow* {
        reverse_proxy 127.0.0.1:7000
    }
    respond "pid={system.pid}"
}
`},
		setup: "id caddy >/dev/null 2>&1 || useradd -r -m -d /var/lib/caddy caddy",
		breaks: []breakage{
			sed("has a mistake in the Caddyfile", "/etc/caddy/Caddyfile", "s/respond/respnd/", "respnd"),
			sed("ignores the socket", "/etc/caddy/Caddyfile", "s|bind fd/3|bind 127.0.0.1|; s/:@PORT@/:6999/", "does not listen"),
		},
	},
	{
		name: "h2o", version: "h2o", preset: "h2o", root: "bookworm/h2o", slow: true,
		note: "measured on Debian 12 with systemd 252; Debian 13 has no H2O.",
		files: map[string]string{"/etc/h2o/h2o.conf": `listen:
  host: 127.0.0.1
  port: @PORT@
user: www-data
hosts:
  default:
    paths:
      /slow:
        proxy.reverse.url: http://127.0.0.1:7000/slow
      /:
        file.dir: /srv/@NAME@
`,
			"/srv/@NAME@/index.html": "hello\n",
		},
		breaks: []breakage{
			sed("has a mistake in h2o.conf", "/etc/h2o/h2o.conf", "s/^hosts:/hots:/", "hots"),
		},
	},
	{
		name: "lighttpd", version: "lighttpd", preset: "lighttpd",
		files: map[string]string{
			"/etc/lighttpd/lighttpd.conf": `server.systemd-socket-activation = "enable"
server.bind = "127.0.0.1"
server.port = @PORT@
server.document-root = "/srv/@NAME@"
server.username = "www-data"
server.groupname = "www-data"
index-file.names = ( "index.html" )
`,
			"/srv/@NAME@/index.html": "hello\n",
		},
		breaks: []breakage{
			sed("has a mistake in lighttpd.conf", "/etc/lighttpd/lighttpd.conf", "s/index-file.names = (/index-file.names = ((/", "lighttpd"),
		},
	},
	{
		name: "apache2", title: "apache2 (event)", version: "apache2", preset: "apache2",
		setup: `sed -i 's/^Listen 80$/Listen @ADDR@/' /etc/apache2/ports.conf; echo ServerName test >> /etc/apache2/apache2.conf; mkdir -p /var/log/apache2`,
		breaks: []breakage{
			sed("has a mistake in its configuration", "/etc/apache2/apache2.conf", "s/^Timeout/Timeot/", "Timeot"),
			sed("ignores the socket", "/etc/apache2/ports.conf", "s/@ADDR@/127.0.0.1:6999/", "does not listen"),
		},
	},
	{
		name: "nghttpx", version: "nghttp2-proxy", quick: true, keepLossless: true, slow: true,
		toml: `[worker]
command = ["/usr/sbin/nghttpx", "--conf=/srv/@NAME@/nghttpx.conf", "--pid-file=${dir}/pid"]
sockets = ["nghttpx"]

[ready]
when = ["listening", "notify"]

[drain]
divert = "none"
signal = "SIGQUIT"
` + listens("http", "@ADDR@"),
		files: map[string]string{"/srv/@NAME@/nghttpx.conf": "frontend=127.0.0.1,@PORT@;no-tls\nbackend=127.0.0.1,7000\nerrorlog-file=/dev/stderr\naccesslog-file=/dev/null\nworkers=2\n"},
	},
	{
		name: "php-fpm", version: "php8.4-fpm", preset: "php-fpm", quick: true, noKeep: true, script: fastCGI("/srv/php-fpm/index.php"),
		files: map[string]string{"/srv/@NAME@/index.php": `<?php echo "pid=", getmypid(), "\n";`},
		setup: `sed -i 's|^listen = .*|listen = @ADDR@|; s/^pm.max_children.*/pm.max_children = 10/' /etc/php/8.4/fpm/pool.d/www.conf
sed -i '/^pid = /d; s/^;*process_control_timeout.*/process_control_timeout = 30s/' /etc/php/8.4/fpm/php-fpm.conf`,
		breaks: []breakage{
			sed("has a mistake in the pool", "/etc/php/8.4/fpm/pool.d/www.conf", "s/^pm = dynamic/pm = dynamo/", "www.conf"),
			sed("ignores the socket", "/etc/php/8.4/fpm/pool.d/www.conf", "s/@ADDR@/127.0.0.1:6999/", "does not listen"),
		},
	},
	{
		name: "fcgiwrap", version: "fcgiwrap", quick: true, noKeep: true, script: fastCGI("/srv/fcgiwrap/hello.sh"),
		toml: `[worker]
command = ["/usr/sbin/fcgiwrap", "-c", "8"]
sockets = ["stdin"]

[drain]
idle    = "2s"
signal  = "SIGTERM"
timeout = "500ms"    # then to all its processes: the first does not tell them
` + listens("fcgi", "@ADDR@"),
		files: map[string]string{"/srv/@NAME@/hello.sh": "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\npid=%s\\n' $$\n"},
		setup: "chmod 755 /srv/@NAME@/hello.sh",
	},
	{
		name: "varnish", version: "varnish", slow: true,
		toml: `[worker]
command = ["/usr/sbin/varnishd", "-F", "-n", "${dir}/varnish", "-a", "@ADDR@", "-f", "/srv/@NAME@/default.vcl", "-s", "default,16m"]
sockets = ["bind"]

[drain]
idle   = "3s"
signal = "SIGTERM"
` + listens("http", "@ADDR@"),
		files: map[string]string{"/srv/@NAME@/default.vcl": `vcl 4.1;
backend default { .host = "127.0.0.1"; .port = "7000"; }
sub vcl_recv { return (pass); }
`},
		setup: "chmod 755 /srv/@NAME@",
	},
	{
		name: "hitch", title: "hitch (TLS)", version: "hitch", tls: true,
		toml: `[worker]
command = ["/usr/sbin/hitch", "--frontend=[127.0.0.1]:@PORT@", "--backend=[127.0.0.1]:7000", "--daemon=off", "--user=www-data", "--workers=2", "/srv/@NAME@/site.pem"]
sockets = ["bind"]

[drain]
idle   = "2s"
signal = "SIGTERM"
` + listens("https", "@ADDR@"),
		setup: certificate,
	},
	{
		name: "stunnel", title: "stunnel (TLS)", version: "stunnel4", tls: true,
		toml: `[worker]
command = ["/usr/bin/stunnel4", "/srv/@NAME@/stunnel.conf"]

[drain]
idle   = "2s"
signal = "SIGTERM"
` + listens("https", "@ADDR@"),
		files: map[string]string{"/srv/@NAME@/stunnel.conf": "foreground = yes\npid =\nsyslog = no\n[web]\naccept = @ADDR@\ncert = /srv/@NAME@/site.pem\nconnect = 127.0.0.1:7000\n"},
		setup: certificate,
	},
}

const certificate = `cd /srv/@NAME@ && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test -keyout key.pem -out cert.pem 2>/dev/null
cat cert.pem key.pem > site.pem; chmod 644 site.pem`
