#!/usr/bin/env bash
# Runs user-data for real: in a mount namespace with a copy of /etc, an empty /opt and a
# real block device, against a local S3. Only the system and the package manager are not
# there. Then a backup to that S3, and a second machine that restores it and serves; what the
# node reports, how it drains, and what is refused.
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

# The managers of the system and of packages are what a namespace does not have.
mkdir "$work/stub"
cat >"$work/stub/systemctl" <<STUB
#!/bin/sh
echo "\$@" >>"$work/systemctl.log"
case "\$*" in "stop pulse-node.service") kill "\$(cat "$work/service.pid")" ;; esac
STUB
cat >"$work/stub/apt-get" <<STUB
#!/bin/sh
echo "apt-get \$@" >>"$work/packages.log"
case "\$*" in *unattended-upgrades*) ln -sf /bin/true "$work/stub/unattended-upgrade" ;; esac
STUB
cat >"$work/stub/dpkg" <<STUB
#!/bin/sh
echo "dpkg \$@" >>"$work/packages.log"
install -D /bin/true /opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent
STUB
chmod +x "$work"/stub/*
export PATH="$work/stub:$PATH"

# The metadata of an instance: nothing without a token, and a notice once it is written.
cat >"$work/metadata.py" <<'METADATA'
import http.server, os, sys

class Metadata(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body=b""):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        self.answer(200 if self.path == "/latest/api/token" else 404, b"token")

    def do_GET(self):
        path = os.path.join(sys.argv[2], self.path.removeprefix("/latest/meta-data/").replace("/", "."))
        if self.headers.get("X-aws-ec2-metadata-token") != "token":
            self.answer(401)
        elif os.path.exists(path):
            self.answer(200, open(path, "rb").read())
        else:
            self.answer(404)

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Metadata).serve_forever()
METADATA
metadata="$work/metadata" metadata_port="$(free_port)"
mkdir "$metadata"
printf i-0123456789abcdef0 >"$metadata/instance-id"
printf InService >"$metadata/autoscaling.target-lifecycle-state"
python3 "$work/metadata.py" "$metadata_port" "$metadata" 2>"$work/metadata.log" &
pids+=($!)
export SETUP_METADATA="http://127.0.0.1:$metadata_port"

port="$(free_port)"
export AWS_ENDPOINT_URL="http://127.0.0.1:$port" AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
export AWS_DEFAULT_REGION=us-east-2
moto_server -H 127.0.0.1 -p "$port" >"$work/moto.log" 2>&1 &
pids+=($!)
# A store of somebody else that speaks as S3 does.
other="http://127.0.0.1:$(free_port)"
moto_server -H 127.0.0.1 -p "${other##*:}" >"$work/other.log" 2>&1 &
pids+=($!)
wait_for 60 "the local S3 does not answer" curl -s "$AWS_ENDPOINT_URL"
wait_for 60 "the other store does not answer" curl -s "$other"
aws s3 mb s3://artifacts >/dev/null
aws s3 mb s3://snapshots >/dev/null
aws s3 mb s3://archive >/dev/null
aws s3 mb s3://amazoncloudwatch-agent >/dev/null
echo agent | aws s3 cp - s3://amazoncloudwatch-agent/ubuntu/amd64/latest/amazon-cloudwatch-agent.deb
aws s3api put-object-acl --acl public-read --bucket amazoncloudwatch-agent \
    --key ubuntu/amd64/latest/amazon-cloudwatch-agent.deb
aws --endpoint-url "$other" s3 mb s3://snapshots >/dev/null
aws ssm put-parameter --name /pulse/test/api-token --type SecureString --value hush >/dev/null
aws secretsmanager create-secret --name pulse-test --secret-string \
    '{"s3-credentials": "[default]\naws_access_key_id = other\naws_secret_access_key = hush\n"}' >/dev/null
topic="$(aws sns create-topic --name alarms --query TopicArn --output text)"
queue="$(aws --endpoint-url "$AWS_ENDPOINT_URL" sqs create-queue --queue-name told --query QueueUrl --output text)"
aws sns subscribe --topic-arn "$topic" --protocol sqs \
    --notification-endpoint "arn:aws:sqs:us-east-2:123456789012:told" >/dev/null

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
# What cloud-init does: boot SETTING...
boot() {
    env SETUP_ARTIFACTS=artifacts SETUP_VERSION="$version" SETUP_NETWORK=regtest \
        SETUP_DATA_DEVICE="$device" SETUP_SNAPSHOTS=s3://snapshots/regtest SETUP_SNAPSHOTS_KEPT=2 \
        SETUP_ARCHIVE=s3://archive/regtest SETUP_SECRETS=/pulse/test SETUP_SECRET_ID=pulse-test SETUP_LOG_GROUP=/pulse/test \
        SETUP_ALARM_TOPIC="$topic" SETUP_WAIT_SECS=0.1 "$@" \
        "$root/infra/instance/user-data.sh" >"$work/boot.log" 2>&1
}
# The service, as its unit runs it: serve SETTING...
serve() {
    (
        set -a
        # shellcheck disable=SC1091
        . /etc/pulse-node/environment
        export PULSE_HTTP__ADDR=127.0.0.1:0 PULSE_HTTP__OPS_ADDR=127.0.0.1:0 PULSE_NODE__DRAIN_SECS=0
        export PULSE_P2P__LISTEN=127.0.0.1:0 PULSE_ELECTRUM__TLS_ADDR=127.0.0.1:0
        for setting in "$@"; do export "${setting?}"; done
        exec setpriv --reuid pulse --regid pulse --clear-groups /opt/pulse/bin/pulse-node \
            --config /etc/pulse-node/config.toml --data-dir /opt/pulse/data/node >>"$work/node.log" 2>&1
    ) &
    service=$!
    pids+=("$service")
    echo "$service" >"$work/service.pid"
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
boot PULSE_LOG__FILTER=info,pulse=debug "SETUP_SNAPSHOTS_CALENDAR=Sun *-*-* 03:00:00 UTC" || fail "the first boot failed"
grep -q formatting "$work/boot.log" || fail "the empty volume was not formatted"
mountpoint -q /opt/pulse/data || fail "the data volume is not mounted"
grep -q "^restart pulse-node.service" "$work/systemctl.log" || fail "the service was not started"
[ "$(cat /etc/pulse-node/secrets/api-token)" = hush ] || fail "the secret of SSM did not arrive"
[ "$(stat -c %U:%a /etc/pulse-node/secrets/api-token)" = pulse:600 ] || fail "the secret is open"
grep -q "^aws_secret_access_key" /etc/pulse-node/secrets/s3-credentials || fail "the secret of Secrets Manager did not arrive"
! grep -q hush "$work/boot.log" || fail "a secret stands in the log"
# The last line of a key counts, for systemd as for a shell.
grep -q "^PULSE_LOG__FILTER=info,pulse=debug$" /etc/pulse-node/environment || fail "a setting by name did not arrive"
# Security updates, the agent, the backup's day.
[ "$(apt-config -c /etc/apt/apt.conf.d/20auto-upgrades dump APT::Periodic::Unattended-Upgrade)" = \
    'APT::Periodic::Unattended-Upgrade "1";' ] || fail "updates do not install themselves"
grep -q "^enable --now apt-daily.timer apt-daily-upgrade.timer" "$work/systemctl.log" || fail "updates have no timer"
grep -q "install .*unattended-upgrades" "$work/packages.log" || fail "what installs updates was not installed"
agent=/opt/aws/amazon-cloudwatch-agent
[ -x "$agent/bin/amazon-cloudwatch-agent" ] || fail "the agent was not installed"
grep -q '"log_group_name": "/pulse/test"' "$agent/etc/amazon-cloudwatch-agent.json" || fail "the agent has no log group"
grep -q "^restart amazon-cloudwatch-agent" "$work/systemctl.log" || fail "the agent was not told of its settings"
systemd-analyze calendar "$(sed -n 's/^OnCalendar=\(..*\)/\1/p' /etc/systemd/system/pulse-backup.timer.d/calendar.conf)" \
    >"$work/calendar.log" || fail "the timer of backups is none"
serve
echo kept >/opt/pulse/data/node.marker

: >"$work/systemctl.log"
: >"$work/packages.log"
boot PULSE_LOG__FILTER=info,pulse=debug "SETUP_SNAPSHOTS_CALENDAR=Sun *-*-* 03:00:00 UTC" || fail "the second boot failed"
grep -q "nothing changed" "$work/boot.log" || fail "the second boot changed something"
! grep -q restart "$work/systemctl.log" || fail "the second boot restarted a service"
[ ! -s "$work/packages.log" ] || fail "the second boot installed packages"
[ "$(cat /opt/pulse/data/node.marker)" = kept ] || fail "the second boot lost data"
[ "$(wc -l </etc/fstab)" -eq 1 ] || fail "the volume stands twice in fstab"
# A secret that was changed reaches the service.
aws ssm put-parameter --overwrite --name /pulse/test/api-token --type SecureString --value hush2 >/dev/null
boot PULSE_LOG__FILTER=info,pulse=debug || fail "the boot after a changed secret failed"
grep -q "changed: /etc/pulse-node/secrets/api-token" "$work/boot.log" || fail "a changed secret is not seen"
grep -q "^restart pulse-node.service" "$work/systemctl.log" || fail "a changed secret does not reach the service"
! boot "PULSE_LOG__FILTER=info; reboot" || fail "a setting that a shell would run was taken"

wait_for 120 "the simulated chain does not grow" sh -c "[ \$(curl -sf http://$addr/blocks/tip/height) -ge 102 ]"

# What the node reports: totals at once, rates from the second time on.
report() {
    env STATE_DIRECTORY="$work" SETUP_OPS="$(listens /opt/pulse/data/node/listen.json ops)" /opt/pulse/bin/report "$@"
}
report --print >"$work/report.log" || fail "the node does not report"
grep -q '"SyncPercent"' "$work/report.log" || fail "the report says nothing of the sync"
! grep -q '"Requests"' "$work/report.log" || fail "the first report has a rate"
for _ in 1 2 3; do curl -sf "http://$addr/blocks/tip/height" >/dev/null; done
report || fail "the report does not reach CloudWatch"
reported="$(aws cloudwatch get-metric-statistics --namespace Pulse --metric-name Requests --statistics Sum --period 86400 \
    --dimensions Name=InstanceId,Value=i-0123456789abcdef0 --start-time "$(date -d yesterday +%F)" \
    --end-time "$(date -d tomorrow +%F)" --query 'Datapoints[].Sum' --output text)"
[ "${reported%.*}" -ge 3 ] || fail "the report counts '$reported' requests"

# with_environment COMMAND...: as a unit with this file of settings.
with_environment() {
    (
        set -a
        # shellcheck disable=SC1091
        . /etc/pulse-node/environment
        "$@"
    )
}
# As root, since the tools of this test may lie where only root can read.
for _ in 1 2 3; do
    with_environment /opt/pulse/bin/backup >>"$work/backup.log" 2>&1 || fail "the backup failed"
    sleep 1
done
[ "$(aws s3 ls s3://snapshots/regtest/ | grep -c PRE)" -eq 2 ] || fail "old snapshots are not pruned"
# Only what is 100 blocks deep; the second run goes on behind the first.
for _ in 1 2; do
    SETUP_ARCHIVE_BLOCKS=1 with_environment /opt/pulse/bin/archive >>"$work/archive.log" 2>&1 || fail "the archive failed"
done
for table in blocks transactions address_events; do
    [ "$(aws s3 ls "s3://archive/regtest/$table/" | grep -c parquet)" -ge 3 ] || fail "no archive of $table"
done
# Another node has just sent some; and no answer is not an empty archive.
before="$(aws s3 ls --recursive s3://archive/)"
SETUP_ARCHIVE_APART_SECS=3600 SETUP_ARCHIVE_BLOCKS=1 with_environment /opt/pulse/bin/archive >"$work/apart.log" 2>&1 ||
    fail "the archive failed where another node sends it"
grep -q "young enough" "$work/apart.log" || fail "each node sends the archive"
! SETUP_ARCHIVE_BLOCKS=1 with_environment env SETUP_ARCHIVE=s3://nowhere/regtest /opt/pulse/bin/archive >>"$work/apart.log" 2>&1 ||
    fail "an archive without an answer counts as an empty one"
! grep -q "up to block" "$work/apart.log" || fail "an archive without an answer is sent anew"
[ "$(aws s3 ls --recursive s3://archive/)" = "$before" ] || fail "the archive was sent twice"
latest="$(aws s3 cp s3://snapshots/regtest/latest -)"
mkdir "$work/scratch"
with_environment /opt/pulse/bin/restore-test "$work/scratch" >"$work/restore-test.log" 2>&1 || fail "the backup cannot be restored"
grep -q "restored and whole" "$work/restore-test.log" || fail "the test of the backup says nothing"
# One byte of it is another.
damaged="s3://snapshots/regtest/$latest/headers.dat"
aws s3 cp --only-show-errors "$damaged" "$work/headers.dat"
cp "$work/headers.dat" "$work/damaged.dat"
printf x | dd of="$work/damaged.dat" bs=1 seek=100 conv=notrunc status=none
aws s3 cp --only-show-errors "$work/damaged.dat" "$damaged"
! with_environment /opt/pulse/bin/restore-test "$work/scratch" >"$work/restore-test.log" 2>&1 || fail "a damaged backup passes"
aws s3 cp --only-show-errors "$work/headers.dat" "$damaged"
[ -z "$(ls "$work/scratch")" ] || fail "the test of the backup leaves something behind"
# To the other store.
AWS_ENDPOINT_URL_S3="$other" with_environment /opt/pulse/bin/backup >>"$work/backup.log" 2>&1 || fail "the backup to another store failed"
height="$(curl -sf "http://$addr/blocks/tip/height")"
hash="$(curl -sf "http://$addr/block-height/100")"
stop_service

# The instance will be taken away: the node says 503 on /health, answers on, and stops.
serve PULSE_NODE__DRAIN_SECS=4
wait_for 120 "the node is not ready" curl -sf "http://$addr/health"
SETUP_WAIT_SECS=0.2 /opt/pulse/bin/drain-on-interruption >"$work/drain.log" 2>&1 &
drain=$!
pids+=("$drain")
sleep 1
curl -sf "http://$addr/health" >/dev/null || fail "the node drains without a reason"
: >"$work/systemctl.log"
echo '{"action": "terminate", "time": "2026-11-21T08:22:00Z"}' >"$metadata/spot.instance-action"
status_is() { [ "$(curl -s -o /dev/null -w '%{http_code}' "http://$addr$1")" = "$2" ]; }
wait_for 3 "the node does not drain" status_is /health 503
status_is /blocks/tip/height 200 || fail "the node does not answer while it drains"
wait "$drain" || fail "the drain failed"
grep -q "^stop pulse-node.service" "$work/systemctl.log" || fail "the service was not stopped"
wait "$service" || fail "the drained node did not stop cleanly"
rm "$metadata/spot.instance-action" /opt/pulse/data/node/listen.json
# The group ends the instance.
: >"$work/systemctl.log"
printf Terminated >"$metadata/autoscaling.target-lifecycle-state"
true & echo $! >"$work/service.pid"
SETUP_WAIT_SECS=0.2 timeout 10 /opt/pulse/bin/drain-on-interruption >"$work/drain.log" 2>&1 || true
grep -q "^stop pulse-node.service" "$work/systemctl.log" || fail "the end by the group is not seen"

# From the other store, as this one is empty now. Amazon Linux this time.
aws s3 rm --only-show-errors --recursive s3://snapshots/regtest
machine second
cat >"$work/stub/dnf" <<STUB
#!/bin/sh
echo "dnf \$@" >>"$work/packages.log"
STUB
chmod +x "$work/stub/dnf"
boot SETUP_S3_ENDPOINT="$other" || fail "the boot of the second machine failed"
grep -q "install .*amazon-cloudwatch-agent dnf-automatic" "$work/packages.log" || fail "what installs updates was not installed"
python3 -c 'import configparser; c = configparser.ConfigParser(); c.read("/etc/dnf/automatic.conf"); exit(c["commands"]["apply_updates"] != "yes")' ||
    fail "updates do not install themselves"
[ "$(cat /etc/dnf/vars/releasever)" = latest ] || fail "the release stays as old as the image"
rm "$work/stub/dnf"
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
aws --endpoint-url "$AWS_ENDPOINT_URL" sqs receive-message --max-number-of-messages 10 --queue-url "$queue" >"$work/told.log"
grep -q "is not what its checksum says: refused" "$work/told.log" ||
    fail "nobody was told of the tampered artifact"
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
echo "instance: boot, boot again, report, backup, restore, drain, refusals: as they should be"
