#!/bin/bash
# Fuzzes one target for SUPERVISOR_FUZZ_TIME and prints its log only if it fails. usage: fuzz.sh DIR TARGET
set -uo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Without a limit the first input that reaches something new may be minimized for a minute, and nothing else be tried.
go test -run '^$' -fuzz "^$2\$" -fuzztime "${SUPERVISOR_FUZZ_TIME:-20s}" -fuzzminimizetime 1s -parallel 1 "./$1" > "$log" 2>&1
code=$?
# go test now and then takes the end of -fuzztime for a failure of the target; no input failed.
if [ $code != 0 ] && grep -q '^    context deadline exceeded$' "$log" && ! grep -q 'Failing input written' "$log"; then
    code=0
fi
mapfile -t execs < <(sed -n 's/.*execs: \([0-9]*\).*/\1/p' "$log" | tail -n 3)
last=0
[ ${#execs[@]} = 0 ] || last=${execs[-1]}
if [ $code = 0 ] && [ "$last" -lt 200 ]; then
    echo "only $last inputs were tried" >> "$log"
    code=1
elif [ $code = 0 ] && [ ${#execs[@]} = 3 ] && [ "${execs[0]}" = "$last" ]; then
    echo "an input hung: none was tried at the end" >> "$log"
    code=1
fi
if [ $code = 0 ]; then
    echo "ok   $1 $2 execs: $last"
else
    echo "FAIL $1 $2"
    cat "$log"
fi
exit $code
