#!/usr/bin/env bash
# Installs what a release needs besides the build: tools of Debian packages, and
# cargo-cyclonedx in target/infra. Does nothing when all is there.
set -euo pipefail
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cyclonedx=0.5.9

packages=()
for tool in dh:debhelper help2man:help2man objcopy:binutils dpkg-buildpackage:dpkg-dev; do
    command -v "${tool%%:*}" >/dev/null || packages+=("${tool##*:}")
done
if [ ${#packages[@]} -gt 0 ]; then
    echo "setup-release: installing ${packages[*]}"
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi

tools="$(realpath -m "$target_dir")/infra"
if ! "$tools/bin/cargo-cyclonedx" cyclonedx --version 2>/dev/null | grep -q " $cyclonedx$"; then
    echo "setup-release: installing cargo-cyclonedx"
    # Not among our own objects: other flags would build these anew.
    env -u CARGO_TARGET_DIR cargo install --quiet --locked --root "$tools" "cargo-cyclonedx@$cyclonedx"
fi
