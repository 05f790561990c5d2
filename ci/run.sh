#!/usr/bin/env bash
# Builds the node and runs it on a chain that it makes itself.
set -euo pipefail
"$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

ci/build.sh

cat <<'TEXT'

A living regtest chain, kept in ./data/simulate. Ctrl-C stops it. In another terminal:

  curl http://127.0.0.1:8080/stats
  curl http://127.0.0.1:8080/api/blocks/tip/height
  curl http://127.0.0.1:8080/api/blocks
  curl http://127.0.0.1:8080/metrics

TEXT
exec "$target_dir/release/pulse-node" --simulate --data-dir ./data/simulate "$@"
