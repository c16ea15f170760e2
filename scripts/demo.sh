#!/bin/bash
# The demonstration. HAProxy is installed first where that is possible; without it the tests' own worker is the server.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

if ! command -v haproxy > /dev/null && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "demo: installing haproxy"
    export DEBIAN_FRONTEND=noninteractive
    if { apt-get install -y -qq --no-install-recommends haproxy || { apt-get update -qq && apt-get install -y -qq --no-install-recommends haproxy; }; } > /dev/null 2>&1; then
        # The package starts a service of its own, which nobody asked for here.
        if [ -d /run/systemd/system ]; then systemctl disable --now haproxy 2> /dev/null || true; fi
    else
        echo "demo: haproxy cannot be installed here"
    fi
fi
exec go run ./test/demo
