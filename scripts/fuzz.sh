#!/bin/bash
# Fuzzes one target for SUPERVISOR_FUZZ_TIME and prints its log only if it fails. usage: fuzz.sh DIR TARGET
set -uo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Without a limit the first input that reaches something new may be minimized for a minute, and nothing else be tried.
if go test -run '^$' -fuzz "^$2\$" -fuzztime "${SUPERVISOR_FUZZ_TIME:-20s}" -fuzzminimizetime 1s -parallel 1 "./$1" > "$log" 2>&1; then
    echo "ok   $1 $2 $(grep -o 'execs: [0-9]*' "$log" | tail -1)"
elif grep -q '^    context deadline exceeded$' "$log" && ! grep -q 'Failing input written' "$log"; then
    # go test now and then takes the end of -fuzztime for a failure of the target; no input failed.
    echo "ok   $1 $2 $(grep -o 'execs: [0-9]*' "$log" | tail -1)"
else
    echo "FAIL $1 $2"
    cat "$log"
    exit 1
fi
