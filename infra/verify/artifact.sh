#!/usr/bin/env bash
# The release as its users get it: portable, the same bytes each time, listed, checked; the
# tarball runs in a minimal system without rights and on a read-only root, and so does the Debian
# package, which dpkg installs there.
#
# Needs root, for the namespace and the other system: that of this machine, or ROOT_SUITE of
# ROOT_MIRROR, by debootstrap, kept in target/infra.
set -euo pipefail
tools="${INFRA_TOOLS:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/target/infra/bin}"
if [ "${1:-}" != inside ]; then
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    exec "${as_root[@]}" env PATH="$PATH" NODE_BINARY="${NODE_BINARY:-}" INFRA_TOOLS="$tools" \
        CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-}" ROOT_SUITE="${ROOT_SUITE:-}" ROOT_MIRROR="${ROOT_MIRROR:-}" \
        unshare -m "$0" inside
fi
[ -n "${CARGO_TARGET_DIR:-}" ] || unset CARGO_TARGET_DIR
# shellcheck source=infra/verify/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
suite="${ROOT_SUITE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}"
system="$work/system"
undo() {
    umount -l "$system"/{dev,proc,tmp,data} "$system" 2>/dev/null || true
}
quiet() {
    "$@" >>"$work/steps.log" 2>&1 || fail "$*"
}

# --- What a release is made of
"$root/ci/release.sh" --binary "$node" "$work/dist"
"$root/ci/release.sh" --binary "$node" "$work/again" >/dev/null
diff "$work"/{dist,again} || fail "the same executable makes different files"
read -r _ version _ < <("$node" --version)
name="pulse-node-$version-linux-$(uname -m)"
deb="$(basename "$work"/dist/*.deb)"
cd "$work/dist"
quiet sha256sum --strict --check ./*.sha256
[ "$(find . -name '*.sha256' | wc -l)" -eq 3 ] || fail "not every file has a checksum"
for file in "$name.tar.gz" "$deb" "pulse-node-$version.cdx.json"; do
    cp "$file" "$work/kept"
    printf x >>"$file"
    ! sha256sum --status --check "$file.sha256" || fail "tampering with $file is not noticed"
    mv "$work/kept" "$file"
done
cd /
# An ordinary program of C++ is not portable, so that the refusal means something.
echo '#include <iostream>
int main() { std::cout << 1; }' | c++ -x c++ -o "$work/ordinary" -
! "$root/ci/portable.sh" "$work/ordinary" 2>/dev/null || fail "a program that needs libstdc++.so passes as portable"
printf '#include <stdlib.h>\nint main(void) { return arc4random() == 0; }' | cc -x c -o "$work/newer" -
! "$root/ci/portable.sh" "$work/newer" 2>/dev/null || fail "a program that needs glibc 2.36 passes as portable"
python3 - "$work/dist/pulse-node-$version.cdx.json" "$root/Cargo.lock" <<'PYTHON' || fail "the SBOM is not of this executable"
import json, re, sys
bom = json.load(open(sys.argv[1]))
assert bom["bomFormat"] == "CycloneDX" and bom["metadata"]["component"]["name"] == "pulse-bin"
listed = {(part["name"], part["version"]): part for part in bom["components"]}
locked = re.findall(r'name = "(.*)"\nversion = "(.*)"', open(sys.argv[2]).read())
assert set(listed) <= set(locked), set(listed) - set(locked)
for crate in ("bitcoinkernel", "libbitcoinkernel-sys", "rocksdb", "librocksdb-sys", "libp2p", "sled"):
    assert any(name == crate for name, _ in listed), crate
assert not any(name in ("bdk_wallet", "jsonschema", "pulse-testkit") for name, _ in listed)
assert "/tmp/" not in json.dumps(bom)
PYTHON

# --- The tarball in another system
image="$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")/infra/root-$suite.tar"
mkdir "$system"
if [ ! -s "$image" ]; then
    echo "artifact: fetching a minimal $suite"
    quiet debootstrap --variant=minbase --include=systemd "$suite" "$system" ${ROOT_MIRROR:+"$ROOT_MIRROR"}
    mkdir -p "$(dirname "$image")"
    quiet tar -C "$system" --one-file-system --exclude=./var/cache --exclude=./proc --exclude=./sys -cf "$image.new" .
    mv "$image.new" "$image"
    rm -rf --one-file-system "$system"
    mkdir "$system"
fi
mount -t tmpfs tmpfs "$system"
tar -C "$system" -xf "$image"
mkdir -p "$system"/{proc,data,opt/pulse,var/cache/apt}
! ls "$system"/usr/lib/*/libstdc++.so.6 >/dev/null 2>&1 || echo "artifact: $suite has a libstdc++ of its own"
tar -C "$system/opt/pulse" --strip-components=1 --no-same-owner -xzf "$work/dist/$name.tar.gz"
mount -t proc proc "$system/proc"
mount -t tmpfs -o uid=10001,mode=700 tmpfs "$system/data"
mount -o remount,ro "$system"

# within USER COMMAND...: in the other system.
within() {
    local user="$1"
    shift
    chroot --userspec="$user" "$system" "$@"
}
# It is ready before the simulated blocks are there.
has_chain() { [ "$(curl -sf "http://$1/blocks/tip/height")" -ge 100 ]; }
# serves USER NAME EXECUTABLE DATA_DIR: the executable runs there and is reached from here.
serves() {
    PULSE_NODE__DATA_DIR="$4" PULSE_HTTP__ADDR=0.0.0.0:0 HOME=/nonexistent \
        chroot --userspec="$1" "$system" "$3" --simulate >"$work/$2.log" 2>&1 &
    local pid=$! addr
    pids+=("$pid")
    wait_for 60 "$2: does not listen" test -s "$system$4/listen.json"
    addr="127.0.0.1:$(listens "$system$4/listen.json" http | sed 's/.*://')"
    wait_for 120 "$2: is not ready" curl -sf "http://$addr/health"
    wait_for 120 "$2: no chain" has_chain "$addr"
    # Not -q, which would end before curl has written all.
    curl -sf "http://$addr/metrics" | grep "pulse_build_info{version=\"$version\",commit=\"[0-9a-f]" >/dev/null ||
        fail "$2: /metrics does not name the version"
    PULSE_NODE__DATA_DIR="$4" quiet within "$1" "$3" health --ready
    kill "$pid"
    wait "$pid" || fail "$2: does not stop cleanly"
    ! PULSE_NODE__DATA_DIR="$4" within "$1" "$3" health >/dev/null 2>&1 || fail "$2: well after its end"
}
[ "$(within 10001:10001 /opt/pulse/pulse-node --version)" = "$("$node" --version)" ] || fail "another version"
! touch "$system/written" 2>/dev/null || fail "the root is not read-only"
serves 10001:10001 tarball /opt/pulse/pulse-node /data/node

# --- The Debian package
lintian --fail-on error,warning "$work/dist/$deb" ||
    fail "lintian objects"
mount -o remount,rw "$system"
cp "$work/dist/$deb" "$system/root/"
quiet within 0:0 dpkg --install "/root/$deb"
[ "$(within 0:0 pulse-node --version)" = "$("$node" --version)" ] || fail "the package has another version"
[ "$(within 0:0 stat -c %U:%G:%a /var/lib/pulse-node)" = pulse:pulse:700 ] || fail "the data directory is open"
# shellcheck disable=SC2016 # a name of dpkg
[ "$(within 0:0 dpkg-query -W -f '${Conffiles}' pulse-node | awk '{print $1}')" = /etc/pulse-node/config.toml ] ||
    fail "the configuration is no conffile"
[ -z "$(find "$system/etc/systemd/system" -name 'pulse-node.service')" ] || fail "the service is enabled"
quiet within 0:0 pulse-node config --config /etc/pulse-node/config.toml
unit="$(within 0:0 dpkg-query --listfiles pulse-node | grep '/pulse-node\.service$')"
"$root/infra/verify/unit.sh" "$system$unit"
mount -o remount,ro "$system"
mount -t tmpfs tmpfs "$system/tmp"
# The data directory of the unit, on a volume.
mount -t tmpfs -o "uid=$(within 0:0 id -u pulse),mode=700" tmpfs "$system/data"
serves pulse:pulse package /usr/bin/pulse-node /data/node
mount -o remount,rw "$system"
# What an operator wrote stays, through an upgrade and a removal; only a purge takes it.
echo '# mine' >>"$system/etc/pulse-node/config.toml"
quiet within 0:0 dpkg --install "/root/$deb"
grep -q '^# mine' "$system/etc/pulse-node/config.toml" || fail "an upgrade replaced the configuration"
quiet within 0:0 dpkg --remove pulse-node
grep -q '^# mine' "$system/etc/pulse-node/config.toml" || fail "a removal took the configuration"
[ ! -e "$system/usr/bin/pulse-node" ] || fail "a removal left the executable"
quiet within 0:0 dpkg --purge pulse-node
[ ! -e "$system/etc/pulse-node/config.toml" ] || fail "a purge left the configuration"
[ -d "$system/var/lib/pulse-node" ] || fail "a purge took the data"
echo "artifact: tarball, package and SBOM are as they should be, in a minimal $suite"
