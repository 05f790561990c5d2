#!/usr/bin/env bash
# What an instance does beyond its own machine: the shared file system of snapshots, one
# backup for a whole group, cloudflared from the artifacts bucket. Against a local S3, in a
# mount namespace; the file system is a folder, and the node's snapshots are one file
# (verify/instance.sh has real ones).
#
# Needs root, for the namespace.
set -euo pipefail
tools="${INFRA_TOOLS:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/target/infra/bin}"
if [ "${1:-}" != inside ]; then
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    exec "${as_root[@]}" env INFRA_TOOLS="$tools" unshare -m "$0" inside
fi
# shellcheck source=infra/verify/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
instance="$root/infra/instance"
export PATH="$work/stub:$tools:$PATH"
undo() {
    umount -l /etc/fstab "$work"/{one,two}/shared 2>/dev/null || true
}

port="$(free_port)"
export AWS_ENDPOINT_URL="http://127.0.0.1:$port" AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
export AWS_DEFAULT_REGION=us-east-2
moto_server -H 127.0.0.1 -p "$port" >"$work/moto.log" 2>&1 &
pids+=($!)
wait_for 60 "the local S3 does not answer" curl -s "$AWS_ENDPOINT_URL"
aws s3 mb s3://snapshots >/dev/null
aws s3 mb s3://artifacts >/dev/null

# Two nodes that mount the same file system, as user-data.sh does it.
mkdir "$work/stub" "$work/file-system"
: >"$work/fstab"
mount --bind "$work/fstab" /etc/fstab
for tool in mount.efs chown; do printf '#!/bin/sh\nexit 0\n' >"$work/stub/$tool"; done
# By the line in fstab: that type is the folder.
cat >"$work/stub/mount" <<STUB
#!/bin/sh
grep -q "^fs-1:/ \$1 efs .*tls.*accesspoint=fsap-1" /etc/fstab || exit 32
exec /bin/mount --bind "$work/file-system" "\$1"
STUB
chmod +x "$work/stub"/*
hash -r
eval "$(sed -n '/^mount_shared() {$/,/^}$/p' "$instance/user-data.sh")"
say() { echo "$*" >>"$work/say.log"; }
export SETUP_SNAPSHOTS=s3://snapshots/regtest SETUP_SHARED=fs-1:fsap-1
for node in one two; do
    mkdir -p "$work/$node/bin" "$work/$node/data/node"
    # As `pulse-node snapshot create DIR ...` and `snapshot restore DIR ... --data-dir DATA`.
    cat >"$work/$node/bin/pulse-node" <<'STUB'
#!/bin/sh
case "$2" in
create) mkdir -p "$3" && cat "${7}/chain" >"$3/chain" ;;
restore) grep -q whole "$3/chain" && cp "$3/chain" "$7/" ;;
esac
STUB
    chmod +x "$work/$node/bin/pulse-node"
    root="$work/$node" mount_shared || fail "the shared snapshots are not mounted"
    root="$work/$node" mount_shared || fail "the second boot fails on the mount"
done
[ "$(grep -c efs /etc/fstab)" -eq 2 ] || fail "a mount stands twice in fstab"

as() { env SETUP_ROOT="$work/$1" "$instance/scripts/$2" "${@:3}"; }
echo "whole chain of one" >"$work/one/data/node/chain"
as one backup >"$work/backup.log" 2>&1 || fail "the backup failed"
name="$(aws s3 cp s3://snapshots/regtest/latest -)"
[ -e "$work/file-system/$name/chain" ] || fail "the shared file system has no snapshot"

# A new node takes the shared one, without fetching.
as two restore >"$work/restore.log" 2>&1 || fail "the shared snapshot was not restored"
grep -q "^restore: $name from " "$work/restore.log" || fail "the snapshot was fetched although it is shared"
cmp -s "$work/one/data/node/chain" "$work/two/data/node/chain" || fail "another chain was restored"
# Damaged there: from S3.
echo torn >"$work/file-system/$name/chain"
rm "$work/two/data/node/chain"
as two restore >"$work/restore.log" 2>&1 || fail "a damaged shared snapshot ends the restore"
grep -q "^restore: $name\$" "$work/restore.log" || fail "the snapshot was not fetched"
cmp -s "$work/one/data/node/chain" "$work/two/data/node/chain" || fail "a damaged snapshot was restored"

# The day's snapshot is made once in a group.
SETUP_SNAPSHOTS_APART_SECS=3600 as two backup >"$work/backup.log" 2>&1 || fail "the second backup failed"
grep -q "$name is young enough" "$work/backup.log" || fail "each node makes its own snapshot"
[ "$(aws s3 ls s3://snapshots/regtest/ | grep -c PRE)" -eq 1 ] || fail "a second snapshot was sent"
# And again when it is old; two stay on the file system.
for _ in 1 2; do
    sleep 1.1
    SETUP_SNAPSHOTS_APART_SECS=1 as two backup >>"$work/backup.log" 2>&1 || fail "an old snapshot is not followed by another"
done
[ "$(find "$work/file-system" -mindepth 1 -maxdepth 1 | wc -l)" -eq 2 ] || fail "old shared snapshots stay"

# cloudflared, as it was published, and nothing else.
export SETUP_ARTIFACTS=artifacts SETUP_TUNNEL=1.2.3
cd "$work"
echo "the tunnel" >cloudflared-1.2.3
sha256sum cloudflared-1.2.3 >cloudflared-1.2.3.sha256
publish() { aws s3 cp --only-show-errors "$1" "s3://artifacts/nodes/linux/$1"; }
publish cloudflared-1.2.3
publish cloudflared-1.2.3.sha256
install_tunnel() { "$instance/scripts/install-tunnel" "$work/one/bin/cloudflared"; }
[ "$(install_tunnel)" = "tunnel: 1.2.3" ] || fail "cloudflared was not installed"
[ -z "$(install_tunnel)" ] || fail "it was installed again"
echo "another" >cloudflared-1.2.3
publish cloudflared-1.2.3
! install_tunnel 2>"$work/tunnel.log" || fail "a tampered cloudflared was installed"
[ "$(cat "$work/one/bin/cloudflared")" = "the tunnel" ] || fail "a refused file was left"
echo "shared: snapshots on a file system, one backup a group, cloudflared: as they should be"
