import asyncio
import os
import socket
import sys

from aiohttp import web


async def main(request):
    if request.path == "/slow":
        await asyncio.sleep(1)
    return web.Response(text="pid=%d\n" % os.getpid())


app = web.Application()
app.router.add_get("/{path:.*}", main)
web.run_app(app, sock=socket.socket(fileno=int(sys.argv[1])), print=None, access_log=None)
