#!/bin/bash
# Installs what building and testing needs, and nothing where it is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# command:package
needed="
systemd-nspawn:systemd-container mmdebstrap:mmdebstrap ip:iproute2 ss:iproute2 haproxy:haproxy curl:curl ps:procps
qemu-system-x86_64:qemu-system-x86 mke2fs:e2fsprogs zstd:zstd mandoc:mandoc openssl:openssl nsenter:util-linux make:make git:git
python3:python3 gcc:gcc strip:binutils nginx:nginx-light node:nodejs perl:perl
"
missing=()
for pair in $needed; do
    command -v "${pair%%:*}" > /dev/null || missing+=("${pair##*:}")
done
# The race detector links with the C library.
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)

if [ ${#missing[@]} -gt 0 ]; then
    echo "setup: installing ${missing[*]}"
    scripts/install.sh "${missing[@]}"
fi

staticcheck_version=0.8.2
bin=$(go env GOPATH)/bin
if ! "$bin/staticcheck" -version 2> /dev/null | grep -qF "($staticcheck_version)"; then
    echo "setup: installing staticcheck $staticcheck_version"
    go install "honnef.co/go/tools/cmd/staticcheck@v$staticcheck_version"
fi
