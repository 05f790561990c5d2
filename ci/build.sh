#!/usr/bin/env bash
# Builds the release binary: ci/build.sh [DIR]. With DIR, a copy goes there.
set -euo pipefail
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

step build cargo build --release --locked -p pulse-bin
if [ $# -gt 0 ]; then
    install -D -m 755 "$target_dir/release/pulse-node" "$1/pulse-node"
fi
