const fs = require('fs')
const fastify = require('fastify')()

let mode = ''
try { mode = fs.readFileSync(__dirname + '/mode', 'utf8').trim() } catch {}
if (mode === 'exit') throw new Error('no database, giving up')
if (mode === 'hang') for (;;) ;

fastify.get('/', async () => `pid=${process.pid}\n`)
fastify.get('/slow', async () => { await new Promise(done => setTimeout(done, 1000)); return `pid=${process.pid}\n` })
const fd = Number(process.env.HTTP_FD)
fastify.ready(() => fastify.server.listen(mode === 'ignore' ? 0 : { fd }, () => { if (mode === 'die') setTimeout(() => process.exit(7), 100) }))
process.on('SIGTERM', () => fastify.close().then(() => process.exit(0)))
