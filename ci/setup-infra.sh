#!/usr/bin/env bash
# Installs the tools that judge infra/. Does nothing when all are there.
set -euo pipefail
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# Command and the Debian package that brings it.
tools="promtool:prometheus amtool:prometheus-alertmanager systemd-analyze:systemd
    python3:python3 curl:curl"
packages=()
for tool in $tools; do
    command -v "${tool%%:*}" >/dev/null || packages+=("${tool##*:}")
done
if [ ${#packages[@]} -gt 0 ]; then
    echo "setup-infra: installing ${packages[*]}"
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi
