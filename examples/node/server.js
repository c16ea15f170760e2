// An HTTP server of Node alone (18 or newer) that loses no request when it is replaced: it takes the first socket it is
// passed (LISTEN_FDS), or binds its own. On SIGTERM it stops accepting, answers what it has accepted, and ends.
//
// Node cannot say READY=1 (no Unix datagrams): the supervisor's default, ready when it listens, needs no word from it.
'use strict';

const http = require('http');
const net = require('net');

let draining = false;

const server = http.createServer((request, response) => {
  if (draining) response.setHeader('Connection', 'close');
  response.end(`hello from pid=${process.pid}\n`);
});

const passed = process.env.LISTEN_PID === String(process.pid) && Number(process.env.LISTEN_FDS) > 0;
server.listen(passed ? { fd: 3 } : { host: '127.0.0.1', port: 8080 });

process.on('SIGTERM', () => {
  draining = true;
  // http's own close would close kept connections under their clients' next request; net's only stops accepting.
  net.Server.prototype.close.call(server);
  // A kept connection closes with its next answer, or now; the process ends with the last one.
  setTimeout(() => server.closeIdleConnections(), 1000).unref();
  setTimeout(() => process.exit(0), 25000).unref();
});
