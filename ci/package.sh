#!/usr/bin/env bash
# Packs an executable: ci/package.sh [--version V] [--binary FILE] [--sbom FILE] DIR. Leaves in
# DIR the tarball that infra/instance/user-data.sh installs, its checksum, and the debug
# information. ci/release.sh makes all that a release has.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
version="" binary="" sbom=""
while [ $# -gt 1 ]; do
    case "$1" in
    --version) version="$2" ;;
    --binary) binary="$2" ;;
    --sbom) sbom="$2" ;;
    *) echo "package: unknown option $1" >&2 && exit 2 ;;
    esac
    shift 2
done
out="${1:?DIR is missing}"
# shellcheck source=ci/env.sh
. "$root/ci/env.sh"
if [ -z "$binary" ]; then
    "$root/ci/build.sh"
    binary="$target_dir/release/pulse-node"
fi
version="${version:-$("$binary" --version | awk '{print $2}')}"
name="pulse-node-$version-linux-$(uname -m)"
mkdir -p "$out"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cp -r "$root/infra/instance" "$work/$name"
rm "$work/$name/user-data.sh"
# Debug information for core dumps lies beside; debuggers find it by the link.
objcopy --only-keep-debug --compress-debug-sections "$binary" "$work/$name.debug"
strip -o "$work/$name/pulse-node" "$binary"
objcopy --add-gnu-debuglink="$work/$name.debug" "$work/$name/pulse-node"
chmod 755 "$work/$name/pulse-node"
cp "$root/LICENSE" "$root/config.example.toml" "$work/$name/"
if [ -n "$sbom" ]; then cp "$sbom" "$work/$name/pulse-node.cdx.json"; fi
# The same files, the same bytes.
stamp="${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)}"
tar --sort=name --mtime="@$stamp" --owner=0 --group=0 --numeric-owner --mode=u+rw,go=rX \
    -C "$work" -c "$name" | gzip -n >"$out/$name.tar.gz"
(cd "$out" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
chmod 644 "$work/$name.debug"
mv "$work/$name.debug" "$out/"
echo "package: $out/$name.tar.gz"
