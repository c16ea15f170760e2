// Package config reads NAME.toml, the description of one service, into a [Config].
//
// Reading is strict: an unknown key, a wrong type or an impossible value is an
// error with file, line and key, and all errors of a file are reported at once
// (mistakes of the TOML syntax alone hide the rest). The package holds no state
// and touches nothing but the file it is asked to read; placeholders such as
// ${fd:http} are checked but stay unexpanded until a generation starts.
//
// # Keys
//
// A duration is a string with units ("500ms", "30s", "2m"), a signal its name
// ("SIGUSR1" or "USR1"), a command an array whose first element is an absolute
// path: no shell, no search in PATH. P marks values that may hold placeholders.
//
//	[worker]
//	command             P  array     required: the worker's program and arguments
//	check               P  array     run before every handoff, must exit 0; default none
//	check_with_sockets     boolean   the check gets the sockets too; default false
//	check_timeout          duration  default "30s"
//	environment         P  table     strings added to the service's environment; not NOTIFY_SOCKET, LISTEN_*, WATCHDOG_*, MAINPID
//	directory           P  string    working directory; default "/"
//	sockets                array     conventions: systemd, getsocks, nginx, fpm, starter, unicorn, nghttpx, einhorn, stdin, argv, bind;
//	                                 default ["systemd"], or ["getsocks"] where the command uses ${getsocks} or ${getsocks_fd}.
//	                                 nginx, fpm, unicorn and nghttpx exclude each other
//	watchdog               duration  the worker must send WATCHDOG=1 this often; default "0s", no watchdog
//	pid_file            P  string    where a generation writes its pid, with ${dir} or ${generation}; needs pid_link
//	pid_link            P  string    fixed path, made a link to the serving generation's pid_file (${runtime} and ${name} only)
//
//	[ready]
//	when                   array     all must hold: listening, notify, haproxy, command, file, delay; default ["listening"]
//	stable                 duration  and still so this much later; shorter than timeout; default "0s"
//	timeout                duration  default "30s"
//	socket              P  string    the worker's admin socket, for haproxy
//	command             P  array     run until it exits 0, for command; ${pid} and $WORKER_PID are the worker's
//	file                P  string    appears when the worker is ready, for file
//	delay                  duration  for delay; shorter than timeout
//
//	[drain]
//	divert                 string    auto, steer, fence, none; default "auto"
//	settle                 duration  between divert and signal; default "500ms"
//	idle                   duration  longest wait for the last connection; default "0s", no wait
//	signal                 signal    default "SIGTERM"
//	command             P  array     run in the place of the signal; excludes signal
//	timeout                duration  from the signal to escalate; default "30s"
//	escalate               array     signals to the whole process tree, and waits; ends with SIGKILL; default ["SIGTERM", "5s", "SIGKILL"]
//	success                array     exit codes and signals that end a clean drain; default [0, "SIGTERM", 143]
//
//	[handoff]
//	order                  string    start-first, signal-first; default "start-first"
//	fetch                  string    getsocks, pidfd, none; default "getsocks" where getsocks is set, else "none"
//	getsocks            P  string    path of the worker's own _getsocks socket
//	max_draining           integer   1 to 1000; default 4
//
//	[[socket]]
//	name                   string    required: unique, at most 200 bytes of printable ASCII without ":" and "\", not "supervisor.…"
//	listen                 string    see [ParseAddress]; absent for options of a socket that a .socket unit passes
//	nonblock               boolean   O_NONBLOCK; left as it is if absent
//	backlog                integer   default 0: as many as the kernel allows
//	defer_accept           duration  TCP_DEFER_ACCEPT, whole seconds (TCP); default "0s", off
//	v6only                 boolean   IPV6_V6ONLY (bound IPv6 sockets); the kernel's default if absent
//	free_bind              boolean   IP_FREEBIND (bound TCP and UDP sockets); default false
//	mode                   string    permissions, "0660" or 0o660 (bound Unix sockets with a path)
//	user, group            string    owner, by name or number in quotes (likewise)
//
// # Placeholders
//
// ${fd:NAME} ${addr:NAME} ${host:NAME} ${port:NAME} ${path:NAME} are of the socket NAME; ${getsocks} is the path of the
// supervisor's own _getsocks server and ${getsocks_fd} a descriptor connected to it; ${pid} the worker's process id (not in
// paths of files), ${generation} and ${slot} (0 or 1 in turn) its number; ${dir} the generation's runtime directory, ${runtime}
// and ${name} the service's. Descriptors are in the worker's command and environment alone, and ${fd:NAME} in a check that gets
// the sockets. Only "${" begins a placeholder, and there is no way to write it literally.
package config
