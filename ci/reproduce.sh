#!/usr/bin/env bash
# Makes the release once more, in another folder, and compares: ci/reproduce.sh DIR, where
# ci/release.sh has left the first one. Takes as long as a first build.
set -euo pipefail
out="$(realpath "${1:?DIR is missing}")"
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
git clone -q . "$work/elsewhere"
export INFRA_TOOLS="${INFRA_TOOLS:-$(realpath -m "$target_dir")/infra/bin}"
# ccache would answer with what the first build made.
(cd "$work/elsewhere" && env CCACHE_DISABLE=1 CARGO_TARGET_DIR="$work/target" ci/release.sh "$work/again")
for file in "$work"/again/*.sha256; do
    cmp "$file" "$out/${file##*/}" || {
        echo "reproduce: ${file##*/} differs" >&2
        exit 1
    }
done
echo "reproduce: the same bytes"
