#!/usr/bin/env bash
# Writes the list of all crates in the executable, with versions, licences and checksums
# (CycloneDX JSON): ci/sbom.sh FILE. The native libraries are crates too (librocksdb-sys,
# libbitcoinkernel-sys). Needs cargo-cyclonedx, which ci/setup-release.sh installs.
set -euo pipefail
out="$(realpath -m "${1:?FILE is missing}")"
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
tools="${INFRA_TOOLS:-$(realpath -m "$target_dir")/infra/bin}"
export PATH="$tools:$PATH"

# It writes a file beside every Cargo.toml: into a copy.
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
git ls-files -z '*.toml' '*.rs' '*.lock' | tar --null --files-from=- -c | tar -x -C "$work"
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}" \
    cargo cyclonedx --quiet --manifest-path "$work/Cargo.toml" --format json --spec-version 1.5 \
    --describe crate --target "$(rustc -vV | sed -n 's/^host: //p')"
# Places in the copy mean nothing to a reader.
sed "s#path+file://$work#pulse-node#g; s#file://$work#.#g" "$work/bin/pulse-bin.cdx.json" >"$out"
echo "sbom: $out"
