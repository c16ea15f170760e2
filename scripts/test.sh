#!/bin/bash
# Runs the stages named, in order, and prints what each took. A failing stage does not keep the next from running,
# except that nothing works without the set-up. usage: test.sh STAGE…
#
# SUPERVISOR_TEST_SUITES  Debian suites of the containers (default: bookworm trixie sid)
# SUPERVISOR_TEST_CACHE   where root file systems are kept (default: /var/cache/supervisor-test)
# SUPERVISOR_TEST_KVM=1   run the virtual machine with KVM instead of software emulation
# SUPERVISOR_FUZZ_TIME    time of each fuzz target (default: 20s)
# SUPERVISOR_TEST_STORM   length of the storm, on all systemds at once (default: 1m, in the stage chaos 10m)
# SUPERVISOR_TEST_SEED    the seed of the storm, to repeat one
set -uo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:$(go env GOPATH)/bin:/usr/local/sbin:/usr/sbin:/sbin

setup() { scripts/setup.sh; }

format() {
    local files
    files=$(git ls-files -z '*.go' | xargs -0 -r gofmt -l)
    [ -z "$files" ] || { printf 'not formatted with gofmt:\n%s\n' "$files"; return 1; }
}

vet() { go vet ./... && go vet -tags vm ./test/... && go vet -tags fault ./internal/...; }

staticcheck() { command staticcheck ./... && command staticcheck -tags vm ./test/... && command staticcheck -tags fault ./internal/...; }

# The race detector needs cgo, which everything else does without.
unit() { CGO_ENABLED=1 go test -race -shuffle=on ./...; }

# The same daemon with the points at which a test may kill it.
# Only what the tag adds: the rest has run in unit.
unit-fault() {
    local tests
    tests=$(git grep -l '^//go:build fault' -- '*_test.go' | xargs grep -ho '^func Test[A-Z][A-Za-z0-9]*(t ' | sed 's/func //; s/(t //' | paste -sd'|')
    CGO_ENABLED=1 go test -race -tags fault -run "^($tests)\$" ./internal/supervisor/ ./internal/fault/
}

# Two targets at a time, each with one worker.
fuzz() {
    git ls-files '*_test.go' | xargs -r grep -oH '^func Fuzz[A-Za-z0-9_]*' | sed 's|/[^/]*_test.go:func | |' |
        xargs -r -P2 -L1 scripts/fuzz.sh
}

demo() {
    local said
    said=$(scripts/demo.sh) && grep -q '^10 reloads: [1-9][0-9]* requests, 0 failed$' <<< "$said" || { printf '%s\n' "$said"; return 1; }
    tail -n 2 <<< "$said"
}

# What the clients counted and how long things took is in results/ afterwards.
containers() {
    local code=0
    rm -rf results && mkdir results
    SUPERVISOR_TEST_REPORT=$PWD/results/report.txt SUPERVISOR_TEST_RESULTS=$PWD/results/results.jsonl \
        CGO_ENABLED=0 go test -tags vm -count=1 -timeout 40m -parallel 6 -run '^TestScenarios$' ./test/vm/ || code=1
    if [ -e results/report.txt ]; then
        grep '^systemd ' results/report.txt | sort -s -k3
        warnings=$(grep '^NEWEST SYSTEMD NOT TESTED' results/report.txt)
    fi
    return $code
}

# Its figures come to those of the containers.
vm() {
    mkdir -p results
    [ ! -e results/results.jsonl ] || sed -i '/"suite":"local"/d' results/results.jsonl
    SUPERVISOR_TEST_REPORT=$PWD/results/report.txt SUPERVISOR_TEST_RESULTS=$PWD/results/results.jsonl \
        CGO_ENABLED=0 go test -tags vm -count=1 -timeout 25m -run '^TestVirtualMachine$' -v ./test/vm/
}

# Real servers: one for each convention, three reloads each. "make matrix" runs all of them.
servers() { SUPERVISOR_MATRIX=quick CGO_ENABLED=0 go test -tags vm -count=1 -timeout 15m -run '^TestMatrix$' ./test/matrix/; }

# Both at the same time: the virtual machine keeps one processor busy, and the servers mostly wait.
servers-vm() {
    local log code=0
    log=$(mktemp)
    vm > "$log" 2>&1 &
    servers || code=1
    wait $! || code=1
    cat "$log"
    rm -f "$log"
    return $code
}

# Somebody is killed at every point on every systemd, and a long storm. "make report" shows what was counted.
chaos() {
    mkdir -p results && rm -f results/results.jsonl
    SUPERVISOR_TEST_LONG=1 SUPERVISOR_TEST_STORM=${SUPERVISOR_TEST_STORM:-10m} SUPERVISOR_TEST_RESULTS=$PWD/results/results.jsonl \
        CGO_ENABLED=0 go test -tags vm -count=1 -timeout 2h -parallel 6 -run '^TestScenarios$/./^(s-|z-storm)' -v ./test/vm/
}

passed=0 failed=0 table= warnings=
for stage in "$@"; do
    echo "== $stage"
    start=$SECONDS
    if "$stage"; then
        passed=$((passed + 1)) word=passed
    else
        failed=$((failed + 1)) word=FAILED
    fi
    table+=$(printf '%-12s %-7s %4d s' "$stage" "$word" $((SECONDS - start)))$'\n'
    [ "$stage" = setup ] && [ $word = FAILED ] && break
done
echo "== stages"
printf '%s' "$table"
printf '%-12s %-7s %4d s\n' all '' $SECONDS
[ -z "$warnings" ] || printf '*** %s\n' "$warnings"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
