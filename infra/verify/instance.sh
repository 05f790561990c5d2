#!/usr/bin/env bash
# Runs user-data for real: in a mount namespace with a copy of /etc, an empty /opt and a
# real block device, against a local S3. Only systemctl is not there. Then a backup to that
# S3, and a second machine that restores it and serves.
#
# Needs root, for the namespace.
set -euo pipefail
tools="${INFRA_TOOLS:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/target/infra/bin}"
if [ "${1:-}" != inside ]; then
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    exec "${as_root[@]}" env NODE_BINARY="${NODE_BINARY:-}" INFRA_TOOLS="$tools" unshare -m "$0" inside
fi
# shellcheck source=infra/verify/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PATH="$tools:$PATH"
loops=()
undo() {
    umount -l /opt/pulse/data /opt /etc "$work"/{first,second,third,fourth} 2>/dev/null || true
    for loop in "${loops[@]}"; do losetup -d "$loop" 2>/dev/null || true; done
}

# The system manager is the one thing that a namespace does not have.
mkdir "$work/stub"
cat >"$work/stub/systemctl" <<STUB
#!/bin/sh
echo "\$@" >>"$work/systemctl.log"
STUB
chmod +x "$work/stub/systemctl"
export PATH="$work/stub:$PATH"

port="$(free_port)"
export AWS_ENDPOINT_URL="http://127.0.0.1:$port" AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
export AWS_DEFAULT_REGION=us-east-2
moto_server -H 127.0.0.1 -p "$port" >"$work/moto.log" 2>&1 &
pids+=($!)
wait_for 60 "the local S3 does not answer" curl -s "$AWS_ENDPOINT_URL"
aws s3 mb s3://artifacts >/dev/null
aws s3 mb s3://snapshots >/dev/null
aws s3 mb s3://archive >/dev/null
aws ssm put-parameter --name /pulse/test/api-token --type SecureString --value hush >/dev/null

version=1.2.3-test
"$root/ci/package.sh" --version "$version" --binary "$node" "$work/artifact"
name="pulse-node-$version-linux-x86_64.tar.gz"
publish() { aws s3 cp --only-show-errors "$work/artifact/$1" "s3://artifacts/nodes/linux/$1"; }
publish "$name"
publish "$name.sha256"

# machine NAME: a new /etc, /opt and data volume.
machine() {
    umount -l /opt/pulse/data 2>/dev/null || true
    umount -l /opt 2>/dev/null || true
    umount -l /etc 2>/dev/null || true
    mkdir "$work/$1"
    mount -t tmpfs tmpfs "$work/$1"
    mkdir "$work/$1/"{etc,work,opt}
    mount -t overlay overlay -o "lowerdir=/etc,upperdir=$work/$1/etc,workdir=$work/$1/work" /etc
    : >/etc/fstab
    # An operator's own settings stay: here, a chain that grows by itself.
    mkdir /etc/pulse-node
    sed 's|^\[node\]|&\nsimulate = true|' "$root/infra/instance/config.toml" >/etc/pulse-node/config.toml
    mount --bind "$work/$1/opt" /opt
    truncate -s 2G "$work/$1/disk"
    device="$(losetup -f --show "$work/$1/disk")"
    loops+=("$device")
    : >"$work/systemctl.log"
}
# What cloud-init does.
boot() {
    env SETUP_ARTIFACTS=artifacts SETUP_VERSION="$version" SETUP_NETWORK=regtest \
        SETUP_DATA_DEVICE="$device" SETUP_SNAPSHOTS=s3://snapshots/regtest \
        SETUP_ARCHIVE=s3://archive/regtest SETUP_SECRETS=/pulse/test \
        SETUP_WAIT_SECS=0.1 "$root/infra/instance/user-data.sh" >"$work/boot.log" 2>&1
}
# The service, as its unit runs it.
serve() {
    (
        set -a
        # shellcheck disable=SC1091
        . /etc/pulse-node/environment
        export PULSE_HTTP__ADDR=127.0.0.1:0 PULSE_HTTP__OPS_ADDR=127.0.0.1:0
        exec setpriv --reuid pulse --regid pulse --clear-groups /opt/pulse/bin/pulse-node \
            --config /etc/pulse-node/config.toml --data-dir /opt/pulse/data/node >>"$work/node.log" 2>&1
    ) &
    service=$!
    pids+=("$service")
    wait_for 60 "the node does not listen" test -s /opt/pulse/data/node/listen.json
    addr="$(listens /opt/pulse/data/node/listen.json http)"
    wait_for 60 "the node does not answer" curl -sf "http://$addr/blocks/tip/height"
}
stop_service() {
    kill "$service"
    wait "$service" || fail "the service did not stop cleanly"
    rm -f /opt/pulse/data/node/listen.json
}

machine first
boot || fail "the first boot failed"
grep -q formatting "$work/boot.log" || fail "the empty volume was not formatted"
mountpoint -q /opt/pulse/data || fail "the data volume is not mounted"
grep -q "^restart pulse-node.service" "$work/systemctl.log" || fail "the service was not started"
[ "$(cat /etc/pulse-node/secrets/api-token)" = hush ] || fail "the secret did not arrive"
[ "$(stat -c %U:%a /etc/pulse-node/secrets/api-token)" = pulse:600 ] || fail "the secret is open"
! grep -q hush "$work/boot.log" || fail "the secret stands in the log"
serve
echo kept >/opt/pulse/data/node.marker

: >"$work/systemctl.log"
boot || fail "the second boot failed"
grep -q "nothing changed" "$work/boot.log" || fail "the second boot changed something"
! grep -q restart "$work/systemctl.log" || fail "the second boot restarted the service"
[ "$(cat /opt/pulse/data/node.marker)" = kept ] || fail "the second boot lost data"
[ "$(wc -l </etc/fstab)" -eq 1 ] || fail "the volume stands twice in fstab"

wait_for 120 "the simulated chain does not grow" sh -c "[ \$(curl -sf http://$addr/blocks/tip/height) -ge 102 ]"
(
    set -a
    # shellcheck disable=SC1091
    . /etc/pulse-node/environment
    # As root, since the tools of this test may lie where only root can read.
    for _ in 1 2 3; do
        SETUP_SNAPSHOTS_KEPT=2 /opt/pulse/bin/backup || exit
        sleep 1
    done
) >"$work/backup.log" 2>&1 || fail "the backup failed"
[ "$(aws s3 ls s3://snapshots/regtest/ | grep -c PRE)" -eq 2 ] || fail "old snapshots are not pruned"
# Only what is 100 blocks deep; the second run goes on behind the first.
for _ in 1 2; do
    (
        set -a
        # shellcheck disable=SC1091
        . /etc/pulse-node/environment
        SETUP_ARCHIVE_BLOCKS=1 /opt/pulse/bin/archive
    ) >>"$work/archive.log" 2>&1 || fail "the archive failed"
done
for table in blocks transactions address_events; do
    [ "$(aws s3 ls "s3://archive/regtest/$table/" | grep -c parquet)" -ge 3 ] || fail "no archive of $table"
done
height="$(curl -sf "http://$addr/blocks/tip/height")"
hash="$(curl -sf "http://$addr/block-height/100")"
stop_service

machine second
boot || fail "the boot of the second machine failed"
grep -q "^restore: " "$work/boot.log" || fail "the snapshot was not restored"
[ "$(stat -c %U /opt/pulse/data/node/index)" = pulse ] || fail "restored data is not the service's"
serve
[ "$(curl -sf "http://$addr/block-height/100")" = "$hash" ] || fail "the restored node has another chain"
[ "$(curl -sf "http://$addr/block-height/$((height - 5))")" ] || fail "the restored node lacks blocks"
stop_service

# A tampered artifact changes nothing.
machine third
echo x >>"$work/artifact/$name"
publish "$name"
! boot || fail "a tampered artifact was installed"
grep -q "refused" "$work/boot.log" || fail "a tampered artifact was not refused by name"
[ ! -e /opt/pulse/bin/pulse-node ] || fail "a refused artifact left a binary"
# Nor does a checksum of another file.
echo "$(sha256sum /dev/null | cut -d' ' -f1)  /dev/null" >"$work/artifact/$name.sha256"
publish "$name.sha256"
! boot || fail "a checksum of another file was believed"

# A volume with data is never formatted.
machine fourth
mkfs.ext4 -q "$device"
mount "$device" /mnt && echo mine >/mnt/theirs && umount /mnt
boot || true
[ "$(cat /opt/pulse/data/theirs)" = mine ] || fail "a volume with data was formatted"
echo "instance: boot, boot again, backup, restore, refusals: as they should be"
