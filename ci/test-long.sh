#!/usr/bin/env bash
# All tests, those marked as long included, and more rounds of those that try at random.
set -euo pipefail
"$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

export PULSE_INDEX_CASES="${PULSE_INDEX_CASES:-10000}"
export PULSE_META_DAMAGES="${PULSE_META_DAMAGES:-2500}"
export PULSE_INDEX_DAMAGES="${PULSE_INDEX_DAMAGES:-2000}"
export PULSE_FUZZ_SECONDS="${PULSE_FUZZ_SECONDS:-300}"
# Comparisons with other programs are made by hand (docs/conformance.md).
step "all tests" cargo test --release --locked --workspace -- --include-ignored --skip interop::
