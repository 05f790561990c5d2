#!/usr/bin/env bash
# Everything that has to pass before a change goes in, except what needs long.
set -euo pipefail
"$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

step format cargo fmt --all --check
"$(dirname "${BASH_SOURCE[0]}")/setup-tests.sh"
step build cargo build --release --locked --workspace --all-targets
step tests cargo test --release --locked --workspace
"$(dirname "${BASH_SOURCE[0]}")/fuzz.sh" 45
