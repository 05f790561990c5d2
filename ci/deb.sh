#!/usr/bin/env bash
# Makes a Debian package of a tarball of ci/package.sh: ci/deb.sh TARBALL DIR. The same
# executable under the paths of Debian; the package's description is infra/debian. Needs
# debhelper and help2man, which ci/setup-release.sh installs.
set -euo pipefail
tarball="$(realpath "${1:?TARBALL is missing}")"
out="$(realpath -m "${2:?DIR is missing}")"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir "$work/source"
cd "$work/source"
tar -xzf "$tarball" --strip-components=1 --no-same-owner
cp -r "$root/infra/debian" debian
# A release candidate comes before its release: 1.0.0-rc1 is 1.0.0~rc1.
version="$(basename "$tarball" | sed -E 's/^pulse-node-(.*)-linux-[a-z0-9_]+\.tar\.gz$/\1/; s/-/~/')"
SOURCE_DATE_EPOCH="$(stat -c %Y pulse-node)"
export SOURCE_DATE_EPOCH DEB_BUILD_OPTIONS=nocheck
{
    printf 'pulse-node (%s) unstable; urgency=medium\n\n  * Changes: CHANGELOG.md of the release.\n\n' "$version"
    printf ' -- %s  %s\n' "$(sed -n 's/^Maintainer: //p' debian/control)" "$(date -Ru -d "@$SOURCE_DATE_EPOCH")"
} >debian/changelog
# The unit of the instances, with Debian's paths and the journal.
sed -e 's#/opt/pulse/bin/#/usr/bin/#; s#/opt/pulse/data\(/node\)\?#/var/lib/pulse-node#' \
    -e '/^# A file, because/d; /^LogsDirectory=/d; /^Standard\(Output\|Error\)=/d' \
    -e '1s#.*#\# pulse-node as a service.#' systemd/pulse-node.service >debian/pulse-node.service
help2man --no-info --name "Bitcoin node with Esplora, Electrum and metrics" ./pulse-node >debian/pulse-node.1
dpkg-buildpackage --build=binary --no-sign >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    exit 1
}
mkdir -p "$out"
mv "$work"/*.deb "$out/"
deb="$(basename "$(ls "$out"/pulse-node_"$version"_*.deb)")"
(cd "$out" && sha256sum "$deb" >"$deb.sha256")
echo "deb: $out/$deb"
