import signal

from cheroot import wsgi

from app import app

# LISTEN_PID makes it take descriptor 3, whatever this address says.
server = wsgi.Server(("127.0.0.1", 0), app, numthreads=16)
server.safe_start()
