//go:build vm

package matrix

const redisConf = `sed -i 's/^port .*/port @PORT@/; s/^bind .*/bind 127.0.0.1/; s/^pidfile/#&/; s/^daemonize .*/daemonize no/; s/^logfile .*/logfile ""/' /etc/redis/redis.conf; chmod 644 /etc/redis/redis.conf`

var stores = []*server{
	{
		name: "redis", title: "redis (one after the other)", version: "redis-server", preset: "redis", script: redisPing, setup: redisConf,
		breaks: []breakage{{
			kind: dies, what: dies, patience: "20s", words: []string{"was ready, but not for", "exit code 7"}, takes: true,
			command: []string{"/bin/sh", "-c", `/usr/bin/redis-server /etc/redis/redis.conf --supervised systemd --daemonize no & p=$!
until redis-cli -p @PORT@ ping | grep -q PONG; do sleep 0.02; done
sleep 0.2; kill -9 $p; exit 7`},
		}},
		note: "the preset ends the old generation before the new one reads the data set (order = \"signal-first\"): connections that are open then are closed. Where the new one fails, the old configuration is started again, and new connections wait; one that dies after it was ready takes with it what it had accepted.",
	},
	{
		name: "redis-cache", title: "redis (as a cache)", version: "redis-server", preset: "redis", script: redisPing, setup: redisConf,
		edit: []string{"[handoff]\norder = \"signal-first\"    # there is one data set\n", ""},
		breaks: []breakage{
			sed("has a mistake in redis.conf", "/etc/redis/redis.conf", "s/^port /prot /", "prot"),
			sed("ignores the socket", "/etc/redis/redis.conf", "s/^port .*/port 6999/", "does not listen"),
		},
	},
	{
		name: "valkey", version: "valkey-server", script: redisPing,
		toml: `[worker]
command = ["/usr/bin/valkey-server", "--port", "@PORT@", "--bind", "127.0.0.1", "--save", "", "--supervised", "systemd", "--dir", "${dir}"]
sockets = ["bind"]

[ready]
when = ["listening", "notify"]

[drain]
idle = "2s"
` + listens("valkey", "@ADDR@"),
	},
	{
		name: "memcached", version: "memcached", preset: "memcached", script: memcached,
		breaks: []breakage{{what: "is given a wrong option", how: `sed -i 's/"-m", "64"/"-m", "64", "--no-such-option"/' /etc/supervisor/@NAME@.toml`, mend: "true", words: []string{"no-such-option"}}},
	},
	{
		name: "nats-server", version: "nats-server", script: natsPing, noKeep: true,
		toml: `[worker]
command = ["/usr/sbin/nats-server", "-a", "127.0.0.1", "-p", "@PORT@", "-l", "/dev/null"]
sockets = ["bind"]

[drain]
idle   = "2s"
signal = "SIGUSR2"
` + listens("nats", "@ADDR@"),
	},
	{
		name: "mosquitto", version: "mosquitto", preset: "mosquitto", script: mqttConnect, noKeep: true,
		files: map[string]string{"/etc/mosquitto/mosquitto.conf": "listener @PORT@ 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest stderr\nlog_type error\n"},
		breaks: []breakage{
			sed("has a mistake in mosquitto.conf", "/etc/mosquitto/mosquitto.conf", "s/^persistence/persistance/", "persistance"),
			sed("ignores the socket", "/etc/mosquitto/mosquitto.conf", "s/^listener .*/listener 6999 127.0.0.1/", "does not listen"),
		},
	},
}
