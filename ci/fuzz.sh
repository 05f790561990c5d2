#!/usr/bin/env bash
# Throws mutated messages at the parsers of what peers and clients send: ci/fuzz.sh SECONDS [OPTION...]
# The options are those of fuzz-run; see fuzz/README.md.
set -euo pipefail
seconds="${1:?usage: ci/fuzz.sh SECONDS [OPTION...]}"
shift
"$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# Where the workspace builds, so that what both need is built once.
CARGO_TARGET_DIR="$(realpath -m "$target_dir")"
export CARGO_TARGET_DIR
fuzz=(--release --locked --manifest-path fuzz/Cargo.toml)
step "build fuzz" cargo build "${fuzz[@]}"
step fuzz cargo run "${fuzz[@]}" -- --seconds "$seconds" "$@"
