#!/usr/bin/env bash
# What the workflows run to publish, deploy and roll back, against a local S3 and live nodes: a single
# machine that is asked through SSM, and an environment behind a balancer that keeps /stats inside.
# Only Terraform's part, which needs an account, is played by a script that notes what it was
# asked for and starts the machine again, as new user data does; infra/verify/terraform.sh judges
# the configuration itself.
#
# Needs root, for the machine's network namespace.
set -euo pipefail
# shellcheck source=infra/verify/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
tools="${INFRA_TOOLS:-$root/target/infra/bin}"
export PATH="$work/stub:$tools:$PATH"
mkdir "$work/stub" "$work/dist"
http="$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["ports"]["http"])' "$root/infra/environments.json")"
read -r _ version _ < <("$node" --version)

# The machine: a network of its own, so that the node listens there where it does everywhere.
unshare -n sh -c 'ip link set lo up && exec sleep infinity' &
machine=$!
pids+=("$machine")
on_machine=(nsenter -t "$machine" -n)
wait_for 10 "the machine has no network" "${on_machine[@]}" ip -o addr show up to 127.0.0.1
port="$(free_port)"
export AWS_ENDPOINT_URL="http://127.0.0.1:$port" AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
export AWS_DEFAULT_REGION=us-east-2
"$tools/python3" "$root/infra/verify/local_machine.py" "$port" i-1 "${on_machine[@]}" bash >"$work/moto.log" 2>&1 &
pids+=($!)
wait_for 60 "the local S3 does not answer" curl -s "$AWS_ENDPOINT_URL"
aws s3 mb s3://artifacts >/dev/null

# An environment behind a balancer: HAProxy as infra/edge has it, with a certificate.
PULSE_NODE__SIMULATE_INTERVAL_SECS=3600 "$node" --simulate --data-dir "$work/node" \
    --http-addr 127.0.0.1:0 >"$work/node.log" 2>&1 &
pids+=($!)
wait_for 60 "the node does not listen" test -s "$work/node/listen.json"
addr="$(listens "$work/node/listen.json" http)"
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
    -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
cat "$work/cert.pem" "$work/key.pem" >"$work/both.pem"
tls="$(free_port)"
WAIT_FOR_NODE="$root/infra/edge/haproxy/wait-for-node.lua" PUBLIC_HTTP="127.0.0.1:$(free_port)" PUBLIC_HTTPS="127.0.0.1:$tls" CERTS="$work/both.pem" \
    NODE_1="$addr" NODE_2="127.0.0.1:$(free_port)" NODE_3="127.0.0.1:$(free_port)" \
    haproxy -W -f "$root/infra/edge/haproxy/haproxy.cfg" >"$work/haproxy.log" 2>&1 &
pids+=($!)
public() { curl -sf --cacert "$work/cert.pem" "https://localhost:$tls$1"; }
wait_for 120 "nobody serves behind the balancer" public /health
! public /stats || fail "/stats is public: this shows less than it should"

# A machine runs what it is told at its start; only one version is there to be run.
cat >"$work/stub/terraform" <<STUB
#!/bin/bash
case "\$1 \$3" in
"output url") if [ "\$TF_VAR_environment" = dev ]; then printf 'http://192.0.2.1:$http'; else printf 'https://localhost:$tls'; fi ;;
"output instance") printf i-1 ;;
*) echo "\$TF_VAR_environment: \$@" >>"$work/terraform.log" ;;
esac
case "\$TF_VAR_environment \$*" in
"dev apply"*)
    if [ -e "$work/machine.pid" ]; then kill "\$(cat "$work/machine.pid")"; fi
    case "\$*" in
    *"node_version=$version")
        PULSE_NODE__SIMULATE_INTERVAL_SECS=3600 ${on_machine[*]} "$node" --simulate --data-dir "$work/machine" \
            --http-addr "0.0.0.0:$http" >>"$work/machine.log" 2>&1 &
        echo \$! >"$work/machine.pid"
        ;;
    *) rm -f "$work/machine.pid" ;;
    esac
    ;;
esac
STUB
chmod +x "$work/stub/terraform"
undo() {
    if [ -e "$work/machine.pid" ]; then kill "$(cat "$work/machine.pid")" || true; fi
}

# release VERSION: what ci/release.sh leaves, as far as publishing looks at it.
release() {
    rm -f "$work"/dist/*
    for file in "pulse-node-$1-linux-x86_64.tar.gz" "pulse-node_$1_amd64.deb" "pulse-node-$1.cdx.json"; do
        echo "$1" >"$work/dist/$file"
        (cd "$work/dist" && sha256sum "$file" >"$file.sha256")
    done
}
publish() { PULSE_ARTIFACTS=artifacts PULSE_TAG="$1" "$root/ci/publish.sh" "$work/dist" >"$work/publish.log" 2>&1; }
published() { aws s3 ls s3://artifacts/nodes/linux/ | wc -l; }
release "$version"
! publish v9.9.9 || fail "a release is published under the tag of another"
publish "v$version" || fail "a release is not published"
[ "$(published)" -eq 6 ] || fail "not all of the release is published"
publish "v$version" || fail "what is published already, byte by byte, is a fault"
grep -q ": 0 files sent$" "$work/publish.log" || fail "what is published is sent again"
release 0.0.9
publish v0.0.9 || fail "a second release is not published"
# Other bytes under the same name, and a file that is not there yet: neither is sent.
echo other >"$work/dist/pulse-node-0.0.9.cdx.json"
echo more >"$work/dist/another"
(cd "$work/dist" && sha256sum pulse-node-0.0.9.cdx.json >pulse-node-0.0.9.cdx.json.sha256)
! publish v0.0.9 || fail "a release is replaced"
grep -q "published already, with other bytes" "$work/publish.log" || fail "a release is not replaced for another reason"
[ "$(published)" -eq 12 ] || fail "a part of a release that is refused is sent"
[ "$(aws s3 cp s3://artifacts/nodes/linux/pulse-node-0.0.9.cdx.json -)" = 0.0.9 ] || fail "a file is replaced"
release 0.0.8
echo x >>"$work/dist/pulse-node-0.0.8.cdx.json"
! publish v0.0.8 || fail "a damaged release is published"
# Cut off after its second file: the connection to S3 is gone, and comes back.
release 0.0.7
cat >"$work/stub/aws" <<STUB
#!/bin/sh
case "\$*" in
"s3 cp"*"s3://artifacts/nodes/linux/"*)
    [ "\$(cat "$work/sent" 2>/dev/null | wc -l)" -lt 2 ] || exit 1
    echo "\$*" >>"$work/sent" ;;
esac
exec "$tools/aws" "\$@"
STUB
chmod +x "$work/stub/aws"
! publish v0.0.7 || fail "a release that was cut off counts as published"
rm "$work/stub/aws"
hash -r
[ "$(published)" -eq 14 ] || fail "a release that was cut off is there with another number of files"
! aws s3 ls s3://artifacts/nodes/linux/ | grep '0\.0\.7.*sha256' >/dev/null || fail "a checksum is there before all files are"
publish v0.0.7 || fail "a release that was cut off cannot be published"
grep -q ": 4 files sent$" "$work/publish.log" || fail "not just what was missing is sent"
[ "$(published)" -eq 18 ] || fail "a release that was cut off is not completed"

# deploy ENVIRONMENT VERSION
deploy() {
    PULSE_ENVIRONMENT="$1" PULSE_VERSION="$2" PULSE_ARTIFACTS=artifacts TERRAFORM_STATE=state \
        CURL_CA_BUNDLE="$work/cert.pem" TF_VAR_region=us-east-2 TF_VAR_domain="" DEPLOY_WAIT_SECS="${3:-60}" DEPLOY_PAUSE_SECS=0.1 \
        "$root/ci/deploy.sh" >"$work/deploy.log" 2>&1
}
applied() { grep -o 'node_version=.*' "$work/terraform.log" | tail -1; }
record() { aws s3 cp "s3://artifacts/deployed/$1" -; }
! deploy dev previous || fail "nothing is rolled back to"
! deploy dev 1.2.3 || fail "a version that is not there is deployed"
! deploy dev '0.1.0; rm' || fail "any text is taken for a version"
[ ! -e "$work/terraform.log" ] || fail "Terraform was asked in vain"
for environment in dev staging; do
    deploy "$environment" "v$version" || fail "$environment: a version that serves is not deployed"
    grep -q "^$environment: init .*bucket=state .*region=us-east-2" "$work/terraform.log" ||
        fail "Terraform has another state"
    [ "$(applied)" = "node_version=$version" ] || fail "another version was applied"
    # The next one never serves: the last good one comes back, and the record does not know it.
    ! deploy "$environment" 0.0.9 3 || fail "$environment: a version that does not serve counts as deployed"
    [ "$(applied)" = "node_version=0.0.9" ] || fail "another version was applied"
    deploy "$environment" current || fail "$environment: the last good version does not come back"
    [ "$(applied)" = "node_version=$version" ] || fail "another version came back"
    [ "$(record "$environment")" = "$version" ] || fail "the record is wrong"
done
# By hand, after one that served: from 0.0.9, which served once, back to the one before.
printf '%s\n0.0.9\n' "$version" | aws s3 cp --only-show-errors - s3://artifacts/deployed/dev
deploy dev previous || fail "it is not rolled back"
[ "$(applied)" = "node_version=$version" ] || fail "it is rolled back to another version"
[ "$(record dev | tail -1)" = "$version" ] || fail "the record does not know of it"
# How long an environment may take stands in environments.json, for each.
(cd "$root" && python3 - <<'PY') || fail "an environment has no deploy_wait_secs"
import json
shared = json.load(open("infra/environments.json"))
for environment in shared["environments"].values():
    assert ({**shared["defaults"], **environment})["deploy_wait_secs"] > 0
PY
echo "publish: publish, take up again, deploy, failure and roll back: as they should be"
