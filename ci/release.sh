#!/usr/bin/env bash
# Makes all that a release has: ci/release.sh [--binary FILE] DIR. Tarball, Debian package, SBOM,
# each with its checksum, and debug information. Without --binary it builds: then the same
# commit makes the same bytes, in whatever folder (ci/reproduce.sh looks).
#
# To run on Amazon Linux 2023 and Ubuntu 22.04 it must be built on Debian 12: newer systems
# bind what they compile to their own glibc, and ci/portable.sh refuses it.
set -euo pipefail
binary=""
if [ "${1:-}" = --binary ]; then
    binary="$(realpath "$2")"
    shift 2
fi
out="$(realpath -m "${1:?DIR is missing}")"
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)"
export SOURCE_DATE_EPOCH
# Tools stay where ci/setup-release.sh has put them, wherever the build goes.
export INFRA_TOOLS="${INFRA_TOOLS:-$(realpath -m "$target_dir")/infra/bin}"

if [ -z "$binary" ]; then
    host="$(rustc -vV | sed -n 's/^host: //p')"
    # Where things lay while they were compiled must not show. A folder of its own, since
    # other flags are another build.
    target_dir="$(realpath -m "$target_dir")/release-build"
    map() { printf -- "--remap-path-prefix=%s=%s" "$1" "$2"; }
    cargo_home="${CARGO_HOME:-$HOME/.cargo}"
    prefixes="-ffile-prefix-map=$cargo_home=cargo -ffile-prefix-map=$target_dir=target"
    export CARGO_TARGET_DIR="$target_dir" CFLAGS="$prefixes" CXXFLAGS="$prefixes"
    step build cargo build --release --locked -p pulse-bin --config \
        "target.$host.rustflags = ['$(map "$cargo_home" cargo)', '$(map "$target_dir" target)', '$(map "$PWD" .)']"
    binary="$target_dir/release/pulse-node"
fi
ci/portable.sh "$binary"
mkdir -p "$out"
version="$("$binary" --version | awk '{print $2}')"
sbom="$out/pulse-node-$version.cdx.json"
ci/sbom.sh "$sbom"
(cd "$out" && sha256sum "${sbom##*/}" >"${sbom##*/}.sha256")
ci/package.sh --version "$version" --binary "$binary" --sbom "$sbom" "$out"
ci/deb.sh "$out/pulse-node-$version-linux-$(uname -m).tar.gz" "$out"
