#!/bin/bash
# The demonstration. HAProxy is installed first where that is possible; without it the tests' own worker is the server.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

if ! command -v haproxy > /dev/null && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "demo: installing haproxy"
    scripts/install.sh haproxy > /dev/null 2>&1 || echo "demo: haproxy cannot be installed here"
fi
exec go run ./test/demo
