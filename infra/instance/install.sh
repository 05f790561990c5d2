#!/bin/bash
# Installs the files beside this script on this machine and starts the service; what is
# installed already is replaced only if it differs. Settings as in user-data.sh.
set -euo pipefail
umask 022

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
: "${SETUP_VERSION:?}" "${SETUP_NETWORK:?}"
root="${SETUP_ROOT:-/opt/pulse}"
say() { echo "install: $*"; }
changed=""

# put MODE FILE TARGET: replaces TARGET at once, and only if it differs.
put() {
    if ! cmp -s "$2" "$3"; then
        install -D -m "$1" "$2" "$3.new"
        mv -f "$3.new" "$3"
        changed="$changed $3"
    fi
}

if ! getent passwd pulse >/dev/null; then
    # One number on all machines, because shared snapshots are files of the user; not elsewhere
    # taken, and the one of the container.
    groupadd --gid 10001 pulse
    useradd --uid 10001 --gid pulse --home-dir "$root" --no-create-home --shell /usr/sbin/nologin pulse
fi
install -d -o pulse -g pulse -m 700 "$root/data/node" "$root/data/snapshots"

# Settings of the scripts, where an environment has them; those of the node are elsewhere.
{
    for key in SETUP_NAME SETUP_GROUP SETUP_SHARED SETUP_SNAPSHOTS_APART_SECS AWS_DEFAULT_REGION; do
        if [ -n "${!key:-}" ]; then echo "$key=${!key}"; fi
    done
} >"$here/instance"
put 644 "$here/instance" /etc/pulse-node/instance
put 755 "$here/scripts/tell-group" "$root/bin/tell-group"
if [ -n "${SETUP_TUNNEL:-}" ]; then
    "$here/scripts/install-tunnel" "$root/bin/cloudflared"
fi

put 755 "$here/pulse-node" "$root/versions/$SETUP_VERSION/pulse-node"
"$root/versions/$SETUP_VERSION/pulse-node" --version
mkdir -p "$root/bin"
if [ "$(readlink "$root/bin/pulse-node" || true)" != "../versions/$SETUP_VERSION/pulse-node" ]; then
    ln -sfn "../versions/$SETUP_VERSION/pulse-node" "$root/bin/pulse-node.new"
    mv -fT "$root/bin/pulse-node.new" "$root/bin/pulse-node"
    changed="$changed binary"
fi
for script in archive backup restore drain-on-interruption; do
    put 755 "$here/scripts/$script" "$root/bin/$script"
done

# Settings of the node: those of this environment as variables, above the file.
{
    echo "PULSE_NODE__NETWORK=$SETUP_NETWORK"
    echo "PULSE_HTTP__ADDR=0.0.0.0:8080"
    echo "PULSE_HTTP__OPS_ADDR=0.0.0.0:9090"
    echo "PULSE_LOG__FORMAT=json"
    if [ -n "${SETUP_SNAPSHOTS:-}" ]; then echo "SETUP_SNAPSHOTS=$SETUP_SNAPSHOTS"; fi
    if [ -n "${SETUP_ARCHIVE:-}" ]; then echo "SETUP_ARCHIVE=$SETUP_ARCHIVE"; fi
} >"$here/environment"
put 644 "$here/environment" "/etc/pulse-node/environment"
if [ ! -e "/etc/pulse-node/config.toml" ]; then
    put 644 "$here/config.toml" "/etc/pulse-node/config.toml"
fi

# Secrets are files of the service's user; never variables, never in a log.
if [ -n "${SETUP_SECRETS:-}" ]; then
    install -d -o pulse -g pulse -m 700 "/etc/pulse-node/secrets"
    aws ssm get-parameters-by-path --with-decryption --path "$SETUP_SECRETS" --output json |
        python3 "$here/scripts/write-secrets" "/etc/pulse-node/secrets"
    chown -R pulse:pulse "/etc/pulse-node/secrets"
fi

if [ -n "${SETUP_SNAPSHOTS:-}" ] && [ -z "$(ls -A "$root/data/node")" ]; then
    # No snapshot is no fault: the node then syncs from the network.
    # shellcheck disable=SC1091 # files of the machine
    (set -a && . /etc/pulse-node/environment && . /etc/pulse-node/instance && "$root/bin/restore") || say "no snapshot restored: syncing from the network"
fi

put 644 "$here/logrotate" /etc/logrotate.d/pulse-node
for unit in "$here"/systemd/*; do
    put 644 "$unit" "/etc/systemd/system/${unit##*/}"
done
if [ -n "${SETUP_LOG_GROUP:-}" ]; then
    sed "s#@LOG_GROUP@#$SETUP_LOG_GROUP#g" "$here/cloudwatch-agent.json" >"$here/agent.json"
    put 644 "$here/agent.json" "/opt/aws/amazon-cloudwatch-agent/etc/amazon-cloudwatch-agent.json"
    systemctl enable --now amazon-cloudwatch-agent
fi
systemctl daemon-reload
systemctl enable pulse-node.service pulse-drain.service pulse-backup.timer pulse-archive.timer
if [ -n "$changed" ]; then
    say "changed:$changed"
    systemctl restart pulse-node.service
else
    say "nothing changed"
    systemctl start pulse-node.service
fi
systemctl start pulse-drain.service pulse-backup.timer pulse-archive.timer
# Each does nothing where there is no group, and no tunnel.
systemctl enable --now pulse-group.service pulse-tunnel.service
