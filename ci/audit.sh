#!/usr/bin/env bash
# Licences, sources, forbidden crates and known weaknesses of everything that is linked
# (deny.toml). Fetches the advisories, so it runs in the hosted workflow; ci/check.sh does the
# rest of it without a network.
set -euo pipefail
"$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
version=0.20.2

if ! cargo deny --version 2>/dev/null | grep -q " $version$"; then
    # Not among our own objects: other flags would build these anew.
    step "install cargo-deny" env -u CARGO_TARGET_DIR cargo install --quiet --locked "cargo-deny@$version"
fi
step audit cargo deny --locked check
