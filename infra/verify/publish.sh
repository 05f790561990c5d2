#!/usr/bin/env bash
# What the workflows run to publish, deploy and roll back, against a local S3 and a live node.
# Only Terraform's part, which needs an account, is played by a script that notes what it was
# asked for; infra/verify/terraform.sh judges the configuration itself.
set -euo pipefail
# shellcheck source=infra/verify/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
tools="${INFRA_TOOLS:-$root/target/infra/bin}"
export PATH="$work/stub:$tools:$PATH"

port="$(free_port)"
export AWS_ENDPOINT_URL="http://127.0.0.1:$port" AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
export AWS_DEFAULT_REGION=us-east-2
moto_server -H 127.0.0.1 -p "$port" >"$work/moto.log" 2>&1 &
pids+=($!)
wait_for 60 "the local S3 does not answer" curl -s "$AWS_ENDPOINT_URL"
aws s3 mb s3://artifacts >/dev/null
PULSE_NODE__SIMULATE_INTERVAL_SECS=3600 "$node" --simulate --data-dir "$work/node" \
    --http-addr 127.0.0.1:0 >"$work/node.log" 2>&1 &
pids+=($!)
wait_for 60 "the node does not listen" test -s "$work/node/listen.json"
addr="$(listens "$work/node/listen.json" http)"
wait_for 120 "the node is not ready" curl -sf "http://$addr/health"
read -r _ version _ < <("$node" --version)

mkdir "$work/stub" "$work/dist"
cat >"$work/stub/terraform" <<STUB
#!/bin/sh
case "\$1" in
output) printf 'http://$addr' ;;
*) echo "\$TF_VAR_environment: \$@" >>"$work/terraform.log" ;;
esac
STUB
chmod +x "$work/stub/terraform"

# release VERSION: what ci/release.sh leaves, as far as publishing looks at it.
release() {
    rm -f "$work"/dist/*
    for file in "pulse-node-$1-linux-x86_64.tar.gz" "pulse-node_$1_amd64.deb" "pulse-node-$1.cdx.json"; do
        echo "$1" >"$work/dist/$file"
        (cd "$work/dist" && sha256sum "$file" >"$file.sha256")
    done
}
publish() { PULSE_ARTIFACTS=artifacts PULSE_TAG="$1" "$root/ci/publish.sh" "$work/dist" >"$work/publish.log" 2>&1; }
release "$version"
! publish v9.9.9 || fail "a release is published under the tag of another"
publish "v$version" || fail "a release is not published"
[ "$(aws s3 ls s3://artifacts/nodes/linux/ | wc -l)" -eq 6 ] || fail "not all of the release is published"
! publish "v$version" || fail "a release is replaced"
grep -q "published already" "$work/publish.log" || fail "a release is not replaced for another reason"
release 0.0.9
publish v0.0.9 || fail "a second release is not published"
release 0.0.8
echo x >>"$work/dist/pulse-node-0.0.8.cdx.json"
! publish v0.0.8 || fail "a damaged release is published"

deploy() {
    PULSE_ENVIRONMENT=dev PULSE_VERSION="$1" PULSE_ARTIFACTS=artifacts TERRAFORM_STATE=state \
        TF_VAR_region=us-east-2 TF_VAR_domain="" DEPLOY_WAIT_SECS=2 DEPLOY_PAUSE_SECS=0.1 \
        "$root/ci/deploy.sh" >"$work/deploy.log" 2>&1
}
applied() { grep -o 'node_version=.*' "$work/terraform.log" | tail -1; }
! deploy previous || fail "nothing is rolled back to"
! deploy 1.2.3 || fail "a version that is not there is deployed"
! deploy '0.1.0; rm' || fail "any text is taken for a version"
[ ! -e "$work/terraform.log" ] || fail "Terraform was asked in vain"
deploy "v$version" || fail "a version that serves is not deployed"
grep -q "^dev: init .*bucket=state .*region=us-east-2" "$work/terraform.log" ||
    fail "Terraform has another state"
[ "$(applied)" = "node_version=$version" ] || fail "another version was applied"
# The next one never serves: the last good one comes back, and the record does not know it.
! deploy 0.0.9 || fail "a version that does not serve counts as deployed"
[ "$(applied)" = "node_version=0.0.9" ] || fail "another version was applied"
deploy current || fail "the last good version does not come back"
[ "$(applied)" = "node_version=$version" ] || fail "another version came back"
[ "$(aws s3 cp s3://artifacts/deployed/dev -)" = "$version" ] || fail "the record is wrong"
# By hand, after one that served: from 0.0.9, which served once, back to the one before.
printf '%s\n0.0.9\n' "$version" | aws s3 cp --only-show-errors - s3://artifacts/deployed/dev
deploy previous || fail "it is not rolled back"
[ "$(applied)" = "node_version=$version" ] || fail "it is rolled back to another version"
[ "$(aws s3 cp s3://artifacts/deployed/dev - | tail -1)" = "$version" ] || fail "the record does not know of it"
echo "deploy: publish, deploy, failure and roll back: as they should be"
