# The server alone, until its client ends it.
exec redis-server --port "$PORT" --bind 127.0.0.1 --save '' --appendonly no --daemonize no --dir . --loglevel warning --logfile server.log
