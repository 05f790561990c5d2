#!/usr/bin/env bash
# Packs the release: ci/package.sh [--version V] [--binary FILE] DIR. Leaves in DIR the
# tarball that infra/instance/user-data.sh installs, and its checksum.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
version="" binary=""
while [ $# -gt 1 ]; do
    case "$1" in
    --version) version="$2" ;;
    --binary) binary="$2" ;;
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
name="pulse-node-$version-linux-x86_64"
mkdir -p "$out"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cp -r "$root/infra/instance" "$work/$name"
rm "$work/$name/user-data.sh"
# Debug information stays with the build.
strip --strip-debug -o "$work/$name/pulse-node" "$binary"
chmod 755 "$work/$name/pulse-node"
cp "$root/LICENSE" "$root/config.example.toml" "$work/$name/"
# The same files, the same bytes.
stamp="$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)"
tar --sort=name --mtime="@$stamp" --owner=0 --group=0 --numeric-owner --mode=u+rw,go=rX \
    -C "$work" -c "$name" | gzip -n >"$out/$name.tar.gz"
(cd "$out" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
echo "package: $out/$name.tar.gz"
