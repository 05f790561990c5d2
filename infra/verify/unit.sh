#!/usr/bin/env bash
# systemd accepts the unit, and its sandbox stays as tight as it is: unit.sh [FILE]
set -euo pipefail
unit="${1:-$(dirname "${BASH_SOURCE[0]}")/../instance/systemd/pulse-node.service}"
# Highest exposure allowed, in tenths: 0 is none, 100 is all.
most_exposed=20
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
# The program is not installed here; everything else is judged as it stands.
sed 's#^ExecStart=[^ ]*#ExecStart=/bin/true#' "$unit" >"$work/pulse-node.service"
systemd-analyze verify "$work/pulse-node.service"
systemd-analyze security --offline=true --threshold="$most_exposed" \
    "$work/pulse-node.service" | tail -1
