#!/usr/bin/env python3
"""An HTTP server of the standard library that loses no request when it is replaced.

It takes the first socket it is passed (LISTEN_FDS), or binds its own. On SIGTERM it stops accepting, answers what it
has accepted, and ends.
"""

import http.server
import os
import signal
import socket
import threading

draining = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer goes out in one piece
    timeout = 5  # seconds in which a connection must send something

    def do_GET(self):
        body = b"hello from pid=%d\n" % os.getpid()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if draining.is_set():
            self.send_header("Connection", "close")  # also ends the connection here
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # so that server_close waits for the requests under way

    def __init__(self, listener):
        super().__init__(None, Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener


def listener():
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and int(os.environ.get("LISTEN_FDS", 0)) > 0:
        sock = socket.socket(fileno=3)
    else:
        sock = socket.create_server(("127.0.0.1", 8080), backlog=1024)
    # Two generations wait on one socket, and one of them comes too late for each connection: it must not sleep in accept.
    sock.setblocking(False)
    return sock


def notify(text):
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.sendto(text.encode(), "\0" + path[1:] if path[0] == "@" else path)


def main():
    server = Server(listener())

    def stop(*_):
        draining.set()
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    notify("READY=1")
    server.serve_forever(poll_interval=0.05)
    server.server_close()


if __name__ == "__main__":
    main()
