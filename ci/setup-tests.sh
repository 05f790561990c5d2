#!/usr/bin/env bash
# Installs what the tests need besides the build: Node.js and bcoin, an independent node
# that they use as a peer, and a browser. Does nothing when all is there.
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
if [ "${#packages[@]}" -gt 0 ]; then
    echo "setup-tests: installing ${packages[*]}"
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi
cd testkit/bcoin
if ! cmp -s package-lock.json node_modules/installed-lock.json; then
    echo "setup-tests: installing bcoin"
    # No scripts: they would build native parts, which the peer does without.
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
    cp package-lock.json node_modules/installed-lock.json
fi
