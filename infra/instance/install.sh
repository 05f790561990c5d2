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
install -d -o pulse -g pulse -m 700 "$root"/data/{node,snapshots,archive}

# Settings of the scripts, where an environment has them; those of the node are elsewhere.
{
    for key in SETUP_NAME SETUP_GROUP SETUP_SHARED SETUP_SNAPSHOTS_APART_SECS SETUP_ARCHIVE_APART_SECS AWS_DEFAULT_REGION; do
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
for script in archive backup restore restore-test drain-on-interruption report; do
    put 755 "$here/scripts/$script" "$root/bin/$script"
done

# Secrets are files of the service's user; never variables, never in a log.
secrets=/etc/pulse-node/secrets
install -d -o pulse -g pulse -m 700 "$secrets"
# write_secrets: of the answer on standard input.
write_secrets() {
    local written
    written="$(python3 "$here/scripts/write-secrets" "$secrets")"
    changed="$changed$written"
}
if [ -n "${SETUP_SECRETS:-}" ]; then
    write_secrets < <(aws ssm get-parameters-by-path --with-decryption --path "$SETUP_SECRETS" --output json ||
        echo "no answer of SSM")
fi
if [ -n "${SETUP_SECRET_ID:-}" ]; then
    write_secrets < <(aws secretsmanager get-secret-value --secret-id "$SETUP_SECRET_ID" --query SecretString --output text ||
        echo "no answer of Secrets Manager")
fi
chown -R pulse:pulse "$secrets"

# Settings of the node: those of this environment as variables, above the file. Who reaches
# the listeners is the security group's to say.
{
    echo "PULSE_NODE__NETWORK=$SETUP_NETWORK"
    echo "PULSE_HTTP__ADDR=0.0.0.0:${SETUP_HTTP_PORT:-8080}"
    echo "PULSE_HTTP__OPS_ADDR=0.0.0.0:9090"
    echo "PULSE_ELECTRUM__TLS_ADDR=0.0.0.0:50002"
    if [ -e "$secrets/electrum-cert.pem" ]; then
        echo "PULSE_ELECTRUM__TLS_CERT=$secrets/electrum-cert.pem"
        echo "PULSE_ELECTRUM__TLS_KEY=$secrets/electrum-key.pem"
    fi
    echo "PULSE_P2P__LISTEN=0.0.0.0:8333"
    # A balancer sees two failed checks, ten seconds apart, before the node is gone.
    echo "PULSE_NODE__DRAIN_SECS=25"
    if [ -n "${SETUP_FALLBACK:-}" ]; then echo "PULSE_HTTP__FALLBACK_ESPLORA=$SETUP_FALLBACK"; fi
    echo "PULSE_LOG__FORMAT=json"
    # What was given by name wins, as later lines do. Scripts read this file as well as systemd.
    for key in $(compgen -e | grep '^PULSE_' | sort); do
        [[ "${!key}" =~ ^[A-Za-z0-9./:,_@%+=-]*$ ]] || { say "$key has characters that need quoting" && exit 1; }
        echo "$key=${!key}"
    done
    if [ -n "${SETUP_SNAPSHOTS:-}" ]; then
        echo "SETUP_SNAPSHOTS=$SETUP_SNAPSHOTS"
        echo "SETUP_SNAPSHOTS_KEPT=${SETUP_SNAPSHOTS_KEPT:-7}"
        if [ -n "${SETUP_S3_ENDPOINT:-}" ]; then
            echo "AWS_ENDPOINT_URL_S3=$SETUP_S3_ENDPOINT"
            echo "AWS_SHARED_CREDENTIALS_FILE=$secrets/s3-credentials"
        fi
    fi
    if [ -n "${SETUP_ARCHIVE:-}" ]; then echo "SETUP_ARCHIVE=$SETUP_ARCHIVE"; fi
} >"$here/environment"
put 644 "$here/environment" "/etc/pulse-node/environment"
if [ ! -e "/etc/pulse-node/config.toml" ]; then
    put 644 "$here/config.toml" "/etc/pulse-node/config.toml"
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
if [ -n "${SETUP_SNAPSHOTS_CALENDAR:-}" ]; then
    printf '[Timer]\nOnCalendar=\nOnCalendar=%s\n' "$SETUP_SNAPSHOTS_CALENDAR" >"$here/calendar.conf"
    put 644 "$here/calendar.conf" /etc/systemd/system/pulse-backup.timer.d/calendar.conf
fi
# Security updates install themselves; a new kernel waits for the next reboot.
if command -v dnf >/dev/null; then
    put 644 "$here/updates/automatic.conf" /etc/dnf/automatic.conf
    systemctl enable --now dnf-automatic.timer
elif command -v apt-get >/dev/null; then
    put 644 "$here/updates/20auto-upgrades" /etc/apt/apt.conf.d/20auto-upgrades
    systemctl enable --now apt-daily.timer apt-daily-upgrade.timer
fi
if [ -n "${SETUP_LOG_GROUP:-}" ]; then
    agent=/opt/aws/amazon-cloudwatch-agent/etc/amazon-cloudwatch-agent.json
    sed "s#@LOG_GROUP@#$SETUP_LOG_GROUP#g" "$here/cloudwatch-agent.json" >"$here/agent.json"
    systemctl enable amazon-cloudwatch-agent
    if cmp -s "$here/agent.json" "$agent"; then
        systemctl start amazon-cloudwatch-agent
    else
        put 644 "$here/agent.json" "$agent"
        systemctl restart amazon-cloudwatch-agent
    fi
fi
systemctl daemon-reload
systemctl enable pulse-node.service pulse-drain.service pulse-backup.timer pulse-archive.timer pulse-report.timer
if [ -n "$changed" ]; then
    say "changed:$changed"
    systemctl restart pulse-node.service
else
    say "nothing changed"
    systemctl start pulse-node.service
fi
systemctl start pulse-drain.service pulse-backup.timer pulse-archive.timer pulse-report.timer
# Each does nothing where there is no group, and no tunnel.
systemctl enable --now pulse-group.service pulse-tunnel.service
