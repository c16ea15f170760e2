import asyncio
import os
import signal
import socket
import sys

import tornado.httpserver
import tornado.web


class Main(tornado.web.RequestHandler):
    async def get(self):
        if self.request.path == "/slow":
            await asyncio.sleep(1)
        self.write("pid=%d\n" % os.getpid())


async def main():
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.setblocking(False)
    server = tornado.httpserver.HTTPServer(tornado.web.Application([(r"/.*", Main)]))
    server.add_sockets([sock])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.stop()
    await asyncio.sleep(1.5)
    await server.close_all_connections()


asyncio.run(main())
