#!/usr/bin/env bash
# Brings an environment to a version and waits until it serves. Needs Terraform, the AWS CLI
# with credentials, and these variables, besides those of the environment's own settings
# (TF_VAR_domain and so on):
#
#   PULSE_ENVIRONMENT  dev, staging, production or another one of infra/environments.json
#   PULSE_VERSION      version, with or without a leading v; `current`: the last that became
#                      healthy; `previous`: the one before, which rolls back
#   PULSE_ARTIFACTS    bucket of the artifacts; deployed/ENVIRONMENT in it holds the versions that
#                      became healthy, one a line
#   TERRAFORM_STATE    bucket of Terraform's state
#   DEPLOY_WAIT_SECS   how long the environment may take; default one hour, as a group is renewed
#                      node by node
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${PULSE_ENVIRONMENT:?}" "${PULSE_VERSION:?}" "${PULSE_ARTIFACTS:?}" "${TERRAFORM_STATE:?}" "${TF_VAR_region:?}"
# An unset variable of a workflow arrives as an empty one, which Terraform takes for a value.
for variable in TF_VAR_domain TF_VAR_web_domain TF_VAR_zone_id TF_VAR_alarm_emails; do
    if [ -z "${!variable:-}" ]; then unset "$variable"; fi
done
say() { echo "deploy: $*"; }
fail() {
    say "$*" >&2
    exit 1
}
record="s3://$PULSE_ARTIFACTS/deployed/$PULSE_ENVIRONMENT"
# None yet is no fault; anything else is.
history=""
# A statement of its own, so that its failure ends the script.
listed="$(aws s3api list-objects-v2 --bucket "$PULSE_ARTIFACTS" --prefix "deployed/$PULSE_ENVIRONMENT" \
    --query 'Contents[].Key' --output text)"
if tr '\t' '\n' <<<"$listed" | grep -qxF "deployed/$PULSE_ENVIRONMENT"; then
    history="$(aws s3 cp --only-show-errors "$record" -)"
fi
last="$(tail -n 1 <<<"$history")"
case "$PULSE_VERSION" in
current) version="$last" ;;
# The newest one that is another than the last.
previous) version="$(grep -vxF "$last" <<<"$history" | tail -n 1 || true)" ;;
*) version="${PULSE_VERSION#v}" ;;
esac
[ -n "$version" ] || fail "$PULSE_ENVIRONMENT has no $PULSE_VERSION version"
[[ "$version" =~ ^[0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.-]*$ ]] || fail "'$version' is no version"

artifact="nodes/linux/pulse-node-$version-linux-x86_64.tar.gz"
for key in "$artifact" "$artifact.sha256"; do
    aws s3api head-object --bucket "$PULSE_ARTIFACTS" --key "$key" >/dev/null || fail "$key is not in $PULSE_ARTIFACTS"
done
say "$PULSE_ENVIRONMENT: ${last:-nothing} -> $version"

in_environment() { infra/terraform/run "$PULSE_ENVIRONMENT" "$@"; }
in_environment init -input=false -no-color -backend-config="bucket=$TERRAFORM_STATE" \
    -backend-config="region=$TF_VAR_region"
in_environment apply -input=false -no-color -auto-approve -var "node_version=$version"

url="$(in_environment output -raw url)"
deadline=$((SECONDS + ${DEPLOY_WAIT_SECS:-3600}))
# Every one of several answers: nodes of both versions may serve at the same time.
runs_everywhere() {
    for _ in 1 2 3 4 5; do
        curl -sf -m 10 "$url/health" >/dev/null || return 1
        curl -sf -m 10 "$url/stats" | grep -qF "\"version\":\"$version\"" || return 1
    done
}
until runs_everywhere; do
    [ "$SECONDS" -lt "$deadline" ] || fail "$url does not serve $version; the last good version is ${last:-none}"
    sleep "${DEPLOY_PAUSE_SECS:-10}"
done
if [ "$version" != "$last" ]; then
    printf '%s\n' ${history:+"$history"} "$version" | aws s3 cp --only-show-errors - "$record"
fi
say "$PULSE_ENVIRONMENT serves $version"
