#!/usr/bin/env bash
# Format, types, tests and policies of infra/terraform, by Terraform itself. The provider is a
# schema stand-in: it knows every resource's arguments, and never talks to AWS. What only an
# account can show, infra/README.md says.
#
# The stand-in lies beside the checkout (INFRA_STANDIN, default ../shared/infra-verify); with
# CI=true a missing one is a failure, elsewhere its part is skipped.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
tools="${INFRA_TOOLS:-$root/target/infra/bin}"
standin="${INFRA_STANDIN:-$root/../shared/infra-verify}"
cache="${CARGO_TARGET_DIR:-$root/target}/infra/terraform"

terraform version -json | python3 -c '
import json, sys
version = json.load(sys.stdin)["terraform_version"]
if tuple(map(int, version.split("-")[0].split("."))) < (1, 11):
    sys.exit(f"terraform {version} is older than 1.11")
'
terraform fmt -check -recursive -diff "$root/infra/terraform"

if [ ! -d "$standin" ]; then
    [ "${CI:-}" != true ] || { echo "terraform: no stand-in in $standin" >&2 && exit 1; }
    echo "terraform: no stand-in in $standin: validate and test are skipped"
    exit 0
fi

# Schemas of the types that are used here, from the published bindings.
mkdir -p "$cache/plugin"
used="$(grep -rhoE '^(resource|data) "aws_[a-z0-9_]+"' "$root/infra/terraform" |
    sort -u | sed -E 's/resource "(.*)"/\1/; s/data "(.*)"/data.\1/')"
if [ "$used" != "$(cat "$cache/used" 2>/dev/null)" ]; then
    npm install --prefix "$cache" --ignore-scripts --no-audit --no-fund --legacy-peer-deps \
        --loglevel=error @cdktf/provider-aws@21.22.1
    # shellcheck disable=SC2086 # one argument a type
    "$tools/python3" "$standin/extract.py" "$cache/node_modules/@cdktf/provider-aws/lib" \
        "$cache/plugin/schema.json" $used
    echo "$used" >"$cache/used"
fi
cp "$standin/provider.py" "$cache/plugin/"
printf '#!/bin/sh\nexec "%s" "%s"\n' "$tools/python3" "$cache/plugin/provider.py" \
    >"$cache/plugin/terraform-provider-aws"
chmod +x "$cache/plugin/terraform-provider-aws"
sed "s#PLUGIN_DIR#$cache/plugin#" "$standin/terraformrc" >"$cache/terraformrc"
export TF_CLI_CONFIG_FILE="$cache/terraformrc" TF_IN_AUTOMATION=1 CHECKPOINT_DISABLE=1

# A copy, so that nothing is left in the checkout.
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cp -r "$root/infra" "$work/"
quiet() {
    "$@" >"$work/output" 2>&1 || { cat "$work/output" >&2 && exit 1; }
}
for environment in "$work"/infra/terraform/envs/*/; do
    cd "$environment"
    # The state's bucket needs an account.
    sed -i '/backend "s3"/,/^  }/d' main.tf
    quiet terraform get -no-color
    quiet terraform validate -no-color
    echo "terraform: $(basename "$environment") is valid"
done
for tests in "$work"/infra/terraform/modules/*/tests/; do
    cd "$tests/.."
    quiet terraform get -no-color -test-directory=tests
    quiet terraform test -no-color
    echo "terraform: $(basename "$PWD"): $(grep -c '\.\.\. pass$' "$work/output") passed"
done
"$tools/checkov" --directory "$root/infra/terraform" --framework terraform --quiet --compact --skip-download \
    --config-file "$root/infra/verify/checkov.yml"
