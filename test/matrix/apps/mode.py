"""Breaks an application as the file "mode" beside it says."""
import os
import threading
import time

try:
    mode = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "mode")).read().strip()
except FileNotFoundError:
    mode = ""
if mode == "exit":
    raise RuntimeError("no database, giving up")
if mode == "hang":
    time.sleep(3600)
if mode == "die":
    threading.Timer(0.3, os._exit, (7,)).start()
