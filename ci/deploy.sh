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
#   DEPLOY_WAIT_SECS   how long the environment may take; default deploy_wait_secs of
#                      infra/environments.json
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
# Of infra/environments.json: those of the environment, or what all have.
shared() {
    python3 -c '
import json, sys
shared = json.load(open("infra/environments.json"))
print({**shared["defaults"], **shared["environments"][sys.argv[1]], **shared["ports"]}[sys.argv[2]])
' "${PULSE_ENVIRONMENT%@*}" "$1"
}
wait_secs="${DEPLOY_WAIT_SECS:-$(shared deploy_wait_secs)}"
deadline=$((SECONDS + wait_secs))

# From outside, as clients ask. /stats is not public there; what caches have is passed by.
# Every one of several answers: nodes of both versions may serve at the same time.
runs_everywhere() {
    for _ in 1 2 3 4 5; do
        curl -sf -m 10 "$url/health" >/dev/null || return 1
        curl -sf -m 10 "$url/openapi.json?at=$RANDOM$RANDOM" | python3 -c '
import json, sys
sys.exit(json.load(sys.stdin)["info"]["version"] != sys.argv[1])' "$version" 2>/dev/null || return 1
    done
}
# A single node without HTTPS answers nobody, or few: it is asked on the machine, through SSM. While
# the machine starts again, SSM does not know it.
runs_on_machine() {
    local node id told
    node="http://127.0.0.1:$(shared http)"
    id="$(aws ssm send-command --instance-ids "$instance" --document-name AWS-RunShellScript \
        --parameters "commands=curl -sf -m 10 $node/health && curl -sf -m 10 $node/stats | head -c 2000" \
        --query Command.CommandId --output text 2>/dev/null)" || return 1
    for _ in $(seq 60); do
        told="$(aws ssm get-command-invocation --command-id "$id" --instance-id "$instance" \
            --query '[Status, StandardOutputContent]' --output text 2>/dev/null)" || told="Pending"
        case "$told" in
        Success*) break ;;
        Pending* | InProgress* | Delayed*) sleep "${DEPLOY_PAUSE_SECS:-2}" ;;
        *) return 1 ;;
        esac
    done
    grep -qF "\"version\":\"$version\"" <<<"$told"
}
case "$url" in
https:*) serves=runs_everywhere ;;
*)
    instance="$(in_environment output -raw instance)"
    serves=runs_on_machine
    ;;
esac
until "$serves"; do
    [ "$SECONDS" -lt "$deadline" ] ||
        fail "$url does not serve $version after $wait_secs s; the last good version is ${last:-none}"
    sleep "${DEPLOY_PAUSE_SECS:-10}"
done
if [ "$version" != "$last" ]; then
    printf '%s\n' ${history:+"$history"} "$version" | aws s3 cp --only-show-errors - "$record"
fi
say "$PULSE_ENVIRONMENT serves $version"
