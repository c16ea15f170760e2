const http = require('http')

const server = http.createServer((request, response) => response.end(`pid=${process.pid}\n`))
server.listen(@PORT@, '127.0.0.1')
process.on('SIGTERM', () => { server.close(() => process.exit(0)); server.closeIdleConnections() })
