#!/usr/bin/env bash
# Format, lints, documentation; and scripts, spelling and licences where the tools are.
set -euo pipefail
"$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# step_if_installed TOOL COMMAND...
step_if_installed() {
    local tool="$1"
    shift
    if command -v "$tool" >/dev/null; then
        step "$tool" "$@"
    else
        echo "== $tool is not installed: skipped"
    fi
}

step format cargo fmt --all --check
step clippy cargo clippy --release --locked --workspace --all-targets -- -D warnings
# Whoever works on it reads the private items too, to which the public ones may refer.
step documentation env RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" \
    cargo doc --release --locked --workspace --no-deps --document-private-items
step Dockerfile ci/docker.sh
step_if_installed shellcheck shellcheck -x ci/*.sh .ci/run
step_if_installed typos typos
# Advisories need the network and change by the day: the hosted workflow looks at them.
step_if_installed cargo-deny cargo deny --locked check bans licenses sources
