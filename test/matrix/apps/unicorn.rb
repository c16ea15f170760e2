preload_app true
listen "@ADDR@"
worker_processes 4
