#!/bin/bash
# Sets an instance up at its boot: mounts the data volume, fetches and verifies
# the artifact, and hands over to the artifact's own install.sh. May run any number of
# times. Terraform and CDK put the settings in front of it, as SETUP_* variables:
#
#   SETUP_ARTIFACTS   bucket of the artifacts
#   SETUP_VERSION     version to run
#   SETUP_NETWORK     mainnet, testnet4, ...
#   SETUP_DATA_DEVICE device of the data volume, or the id of the EBS volume; empty: none,
#                     data lies on the root volume
#   SETUP_HTTP_PORT   port of the API; empty: 8080
#   SETUP_FALLBACK    URL of another Esplora that answers while this node syncs; empty: none
#   SETUP_SNAPSHOTS   s3://BUCKET/PREFIX of the snapshots; empty: none are restored or made
#   SETUP_SNAPSHOTS_CALENDAR  when they are made, as OnCalendar of systemd; empty: every night
#   SETUP_SNAPSHOTS_KEPT      how many are kept; empty: 7
#   SETUP_S3_ENDPOINT URL of another store with the S3 API for the snapshots; empty: S3. Its
#                     keys are the secret s3-credentials, a file as ~/.aws/credentials
#   SETUP_ARCHIVE     s3://BUCKET/PREFIX of the archive (Parquet files); empty: none is made
#   SETUP_ARCHIVE_APART_SECS  nothing is sent to it while the newest file, of any node, is younger;
#                     empty: each node sends
#   SETUP_SECRETS     prefix of the parameters in SSM; empty: none
#   SETUP_SECRET_ID   secret of Secrets Manager, an object of names and texts; empty: none
#   SETUP_LOG_GROUP   CloudWatch log group; empty: no agent
#   SETUP_NAME        name of the environment, in metrics; empty: none
#   SETUP_GROUP       auto-scaling group that this instance is of; empty: none
#   SETUP_SHARED      FILE_SYSTEM:ACCESS_POINT of EFS with shared snapshots; empty: none
#   SETUP_SNAPSHOTS_APART_SECS  no snapshot is made while the newest, of any node, is younger;
#                     empty: each node makes its own
#   SETUP_TUNNEL      version of cloudflared; its token is the secret tunnel-token; empty: none
#   SETUP_ALARM_TOPIC SNS topic for failures of this script; empty: none
#   PULSE_*           any key of the node's configuration (config.example.toml)
set -euo pipefail
umask 022

: "${SETUP_ARTIFACTS:?}" "${SETUP_VERSION:?}" "${SETUP_NETWORK:?}"
root="${SETUP_ROOT:-/opt/pulse}"
data="$root/data"

say() { echo "user-data: $*"; }
die() {
    say "$*"
    if [ -n "${SETUP_ALARM_TOPIC:-}" ]; then
        aws sns publish --topic-arn "$SETUP_ALARM_TOPIC" --subject "pulse-node: instance not set up" \
            --message "$(hostname): $*" || true
    fi
    exit 1
}

# What the image lacks: the agent, and what installs security updates.
install_packages() {
    local agent=/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent deb
    if command -v dnf >/dev/null; then
        # Amazon Linux stays at the image's release unless told otherwise.
        if [ "$(cat /etc/dnf/vars/releasever 2>/dev/null)" != latest ]; then
            mkdir -p /etc/dnf/vars
            echo latest >/etc/dnf/vars/releasever
        fi
        if [ ! -e "$agent" ] || ! command -v dnf-automatic >/dev/null; then
            dnf install -y -q amazon-cloudwatch-agent dnf-automatic logrotate
        fi
    elif command -v apt-get >/dev/null; then
        if ! command -v unattended-upgrade >/dev/null || ! command -v aws >/dev/null; then
            apt-get update -qq
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
                unattended-upgrades awscli python3 logrotate
        fi
        if [ ! -e "$agent" ] && [ -n "${SETUP_LOG_GROUP:-}" ]; then
            # Ubuntu has no package of it; Amazon's bucket is open to all.
            deb="$(mktemp --suffix=.deb)"
            aws s3 cp --only-show-errors --no-sign-request \
                s3://amazoncloudwatch-agent/ubuntu/amd64/latest/amazon-cloudwatch-agent.deb "$deb"
            dpkg -i "$deb"
            rm "$deb"
        fi
    fi
}

# The device of the volume, once it is attached: as given, or by the id that NVMe devices
# carry in their name.
find_device() {
    local id="${SETUP_DATA_DEVICE/-/}" path
    for _ in $(seq 60); do
        for path in "$SETUP_DATA_DEVICE" "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_$id"; do
            if [ -e "$path" ]; then
                readlink -f "$path"
                return
            fi
        done
        sleep "${SETUP_WAIT_SECS:-5}"
    done
    return 1
}

mount_data() {
    local device uuid
    mkdir -p "$data"
    if mountpoint -q "$data"; then
        say "data volume is mounted"
        return
    fi
    device="$(find_device)" || die "no device $SETUP_DATA_DEVICE"
    # Only a volume without any file system or partition is formatted.
    if [ -z "$(blkid -p -o value -s TYPE -s PTTYPE "$device" || true)" ]; then
        say "formatting $device"
        mkfs.ext4 -q -L pulse -m 1 "$device"
    fi
    uuid="$(blkid -o value -s UUID "$device")"
    if ! grep -q "^UUID=$uuid " "/etc/fstab"; then
        echo "UUID=$uuid $data ext4 defaults,noatime,nofail 0 2" >>"/etc/fstab"
    fi
    mount "$data"
    # The volume may have been enlarged.
    resize2fs "$device" 2>/dev/null
    say "mounted $device"
}

# The file system with the shared snapshots, over TLS and through its access point. Without it
# nodes use S3: a failure here is said, and no more.
mount_shared() {
    local shared="$root/shared"
    mkdir -p "$shared"
    if mountpoint -q "$shared"; then
        say "shared snapshots are mounted"
        return
    fi
    # Ubuntu 22.04 has no package of it.
    command -v mount.efs >/dev/null || dnf install -y -q amazon-efs-utils || return
    if ! grep -q " $shared efs " /etc/fstab; then
        echo "${SETUP_SHARED%%:*}:/ $shared efs _netdev,nofail,tls,iam,accesspoint=${SETUP_SHARED#*:} 0 0" >>/etc/fstab
    fi
    mount "$shared" && say "mounted $shared"
}

# Leaves the verified artifact's files in $1.
fetch_artifact() {
    local name="pulse-node-$SETUP_VERSION-linux-x86_64.tar.gz" from
    from="s3://$SETUP_ARTIFACTS/nodes/linux/$name"
    aws s3 cp --only-show-errors "$from" "$1/$name" || die "$from cannot be fetched"
    aws s3 cp --only-show-errors "$from.sha256" "$1/$name.sha256" || die "$from.sha256 cannot be fetched"
    (cd "$1" && sha256sum --status --strict --check "$name.sha256") ||
        die "$name is not what its checksum says: refused"
    # The checksum file must speak of this very file, or it proves nothing.
    [ "$(awk '{print $2}' "$1/$name.sha256")" = "$name" ] || die "$name.sha256 is of another file: refused"
    mkdir "$1/files"
    tar -xzf "$1/$name" -C "$1/files" --strip-components=1 --no-same-owner
}

install_packages || die "packages cannot be installed"
if [ -n "${SETUP_DATA_DEVICE:-}" ]; then
    mount_data
fi
if [ -n "${SETUP_SHARED:-}" ]; then
    mount_shared || say "no shared snapshots: S3 only"
fi
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
fetch_artifact "$work"
# shellcheck disable=SC2046 # names of variables
export $(compgen -v | grep -E '^(SETUP|PULSE)_')
"$work/files/install.sh" || die "install.sh failed"
say "done"
