//go:build vm

package matrix

var nameServers = []*server{
	{
		name: "unbound", version: "unbound", preset: "unbound", script: dnsTCP, udp: dnsUDP,
		files: map[string]string{"/etc/unbound/unbound.conf": `server:
    use-systemd: yes
    interface: 127.0.0.1
    port: @PORT@
    pidfile: ""
    chroot: ""
    use-syslog: no
    do-ip6: no
    incoming-num-tcp: 100 # of 10 it closes, when half are in use, those that wait
    local-zone: "zz." static
    local-data: "a.zz. A 127.0.0.7"
`},
		breaks: []breakage{
			sed("has a mistake in unbound.conf", "/etc/unbound/unbound.conf", "s/local-zone/local-zoen/", "unbound.conf"),
		},
	},
	{
		name: "dnsmasq", version: "dnsmasq-base", preset: "dnsmasq", script: dnsTCP, udp: dnsUDP, quick: true,
		most: 100, note: "it ends a connection after 100 queries by itself, which is not counted where nothing is drained.",
		files: map[string]string{"/etc/dnsmasq.conf": "bind-interfaces\nlisten-address=127.0.0.1\nport=@PORT@\nno-resolv\nno-hosts\naddress=/a.zz/127.0.0.7\n"},
		breaks: []breakage{
			sed("has a mistake in dnsmasq.conf", "/etc/dnsmasq.conf", "s/no-resolv/no-resolf/", "dnsmasq.conf"),
			sed("ignores the sockets", "/etc/dnsmasq.conf", "s/port=.*/port=6999/", "does not listen"),
		},
	},
	{
		name: "dnsdist", version: "dnsdist", script: dnsTCP, udp: dnsUDP,
		toml: `[worker]
command = ["/usr/bin/dnsdist", "--supervised", "--disable-syslog", "-C", "/srv/@NAME@/dnsdist.conf"]
check   = ["/usr/bin/dnsdist", "--check-config", "-C", "/srv/@NAME@/dnsdist.conf"]
sockets = ["bind"]

[ready]
when = ["listening", "notify"]

[drain]
idle = "2s"
` + listens("dns", "@ADDR@") + listens("dns-udp", "udp:@ADDR@"),
		files: map[string]string{"/srv/@NAME@/dnsdist.conf": `setLocal("@ADDR@")
addAction(AllRule(), SpoofAction("127.0.0.7"))
`},
	},
	{
		name: "knot", version: "knot", script: dnsTCP, udp: dnsUDP,
		toml: `[worker]
command = ["/usr/sbin/knotd", "-c", "/srv/@NAME@/knot-${slot}.conf"]
check   = ["/usr/sbin/knotc", "-c", "/srv/@NAME@/knot-0.conf", "conf-check"]
sockets = ["bind"]

[ready]
when = ["listening", "notify"]

[drain]
idle = "2s"
` + listens("dns", "@ADDR@") + listens("dns-udp", "udp:@ADDR@"),
		files: map[string]string{
			"/srv/@NAME@/knot-0.conf": knotConf("0"), "/srv/@NAME@/knot-1.conf": knotConf("1"),
			"/srv/@NAME@/zz.zone": "$ORIGIN zz.\n@ 3600 SOA a.zz. hostmaster.zz. 1 3600 600 86400 60\n@ NS a.zz.\na A 127.0.0.7\n",
		},
		setup: "mkdir -p /srv/@NAME@/0 /srv/@NAME@/1",
	},
	{
		name: "kresd", title: "knot-resolver", version: "knot-resolver", script: dnsTCP, udp: dnsUDP,
		toml: `[worker]
command = ["/usr/sbin/kresd", "-n", "-q", "-c", "/srv/@NAME@/kresd.conf", "-S", "${fd:dns}", "-S", "${fd:dns-udp}", "${dir}"]
sockets = ["argv"]

[ready]
when = ["listening", "notify"]

[drain]
idle = "2s"
` + listens("dns", "@ADDR@") + listens("dns-udp", "udp:@ADDR@"),
		files: map[string]string{"/srv/@NAME@/kresd.conf": "modules = { 'hints > iterate' }\nhints['a.zz'] = '127.0.0.7'\ntrust_anchors.remove('.')\ncache.size = 10 * MB\n"},
	},
}

func knotConf(slot string) string {
	return `server:
    rundir: /srv/@NAME@/` + slot + `
    listen: 127.0.0.1@@PORT@
    tcp-workers: 2
    udp-workers: 2
database:
    storage: /srv/@NAME@/` + slot + `
log:
  - target: stderr
    any: warning
zone:
  - domain: zz
    file: /srv/@NAME@/zz.zone
`
}

var others = []*server{
	{
		name: "dovecot", title: "dovecot (IMAP)", version: "dovecot-imapd", preset: "dovecot", script: imapGreeting, noKeep: true,
		files: map[string]string{"/etc/dovecot/dovecot.conf": `dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
protocols = imap
ssl = no
log_path = /dev/stderr
mail_driver = maildir
mail_path = ~/Maildir
passdb static {
  password = secret
}
service imap-login {
  inet_listener imap {
    listen = 127.0.0.1
    port = @PORT@
  }
  inet_listener imaps {
    port = 0
  }
}
`},
		breaks: []breakage{
			sed("has a mistake in dovecot.conf", "/etc/dovecot/dovecot.conf", "s/^ssl = no/ssll = no/", "ssll"),
			sed("ignores the socket", "/etc/dovecot/dovecot.conf", "s/port = @PORT@/port = 6999/", "does not listen"),
		},
	},
	{
		name: "sshd", version: "openssh-server", preset: "sshd", script: sshGreeting, noKeep: true,
		setup: `printf 'PerSourcePenalties no\nMaxStartups 1000\n' >> /etc/ssh/sshd_config; ssh-keygen -A >/dev/null`,
		breaks: []breakage{
			sed("has a mistake in sshd_config", "/etc/ssh/sshd_config", "s/^MaxStartups/MaxStartup/", "MaxStartup"),
		},
	},
	{
		name: "vsftpd", title: "vsftpd", version: "vsftpd", script: ftpGreeting, noKeep: true,
		toml: `[worker]
command = ["/usr/sbin/vsftpd", "/srv/@NAME@/vsftpd.conf"]
sockets = ["bind"]

[drain]
idle = "5s"
` + listens("ftp", "@ADDR@"),
		files: map[string]string{"/srv/@NAME@/vsftpd.conf": "listen=YES\nlisten_address=127.0.0.1\nlisten_port=@PORT@\nbackground=NO\nanonymous_enable=YES\nlocal_enable=NO\nsecure_chroot_dir=/srv/@NAME@/empty\nxferlog_enable=NO\n"},
		setup: "mkdir -p /srv/@NAME@/empty; useradd -r ftp 2>/dev/null || true",
	},
}
