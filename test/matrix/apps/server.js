const fs = require('fs')
const http = require('http')

let mode = ''
try { mode = fs.readFileSync(__dirname + '/mode', 'utf8').trim() } catch {}
if (mode === 'exit') throw new Error('no database, giving up')
if (mode === 'hang') for (;;) ;
if (mode === 'die') setTimeout(() => process.exit(7), 300)

function handler(request, response) {
  setTimeout(() => response.end(`pid=${process.pid}\n`), request.url.startsWith('/slow') ? 1000 : 0)
}

const server = http.createServer(handler)
server.listen(mode === 'ignore' ? 0 : process.env.HTTP_FD ? { fd: Number(process.env.HTTP_FD) } : 3000)
process.on('SIGTERM', () => { server.close(() => process.exit(0)); server.closeIdleConnections() })
