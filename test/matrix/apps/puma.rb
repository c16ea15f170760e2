bind "tcp://@ADDR@"
threads 4, 16
