#!/usr/bin/env bash
# Installs what the tests need besides the build: Node.js and bcoin, an independent node
# that they use as a peer; a browser; the Electrum wallet; curl; HAProxy, dnsmasq, iproute2 and
# e2fsprogs for the fleet; Python and Schemathesis, which tries the HTTP API by its description. Does
# nothing when all is there.
set -euo pipefail
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

packages=()
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    packages+=(nodejs npm)
fi
if ! command -v chromium >/dev/null; then
    packages+=(chromium)
fi
if ! command -v curl >/dev/null; then
    packages+=(curl)
fi
# The fleet's: a balancer, a name server, network namespaces, and disks that fail.
for tool in haproxy:haproxy dnsmasq:dnsmasq-base ip:iproute2 mkfs.ext4:e2fsprogs mount:mount; do
    if ! PATH="$PATH:/usr/sbin:/sbin" command -v "${tool%%:*}" >/dev/null; then
        packages+=("${tool##*:}")
    fi
done
if ! command -v electrum >/dev/null; then
    packages+=(electrum)
fi
# Debian has the two modules in a package of their own.
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    packages+=(python3 python3-venv)
fi
if [ "${#packages[@]}" -gt 0 ]; then
    echo "setup-tests: installing ${packages[*]}"
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi

schemathesis=testkit/schemathesis
if ! cmp -s "$schemathesis/requirements.txt" "$schemathesis/venv/installed.txt"; then
    echo "setup-tests: installing Schemathesis"
    rm -rf "$schemathesis/venv"
    python3 -m venv "$schemathesis/venv"
    "$schemathesis/venv/bin/pip" install --quiet --disable-pip-version-check \
        --requirement "$schemathesis/requirements.txt"
    cp "$schemathesis/requirements.txt" "$schemathesis/venv/installed.txt"
fi
cd testkit/bcoin
if ! cmp -s package-lock.json node_modules/installed-lock.json; then
    echo "setup-tests: installing bcoin"
    # No scripts: they would build native parts, which the peer does without.
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
    cp package-lock.json node_modules/installed-lock.json
fi
