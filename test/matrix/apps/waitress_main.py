import signal
import socket
import sys

import waitress

from app import app


def stop(*_):
    raise SystemExit(0)


signal.signal(signal.SIGTERM, stop)
waitress.serve(app, sockets=[socket.socket(fileno=int(sys.argv[1]))])
