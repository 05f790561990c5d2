#!/usr/bin/env bash
# Format, types, tests, plans and policies of infra/terraform, by Terraform itself. The
# provider is a schema stand-in: it knows every resource's arguments, and never talks to AWS.
# What only an account can show, infra/README.md says.
#
# fmt -> validate -> `terraform test` of every module and of the whole -> a plan of every
# environment -> checkov on plans and source, contract_plans.py on the plans
#
# The stand-in lies beside the checkout (INFRA_STANDIN, default ../shared/infra-verify). Where it
# is missing this fails, unless INFRA_STANDIN=none says that only the format is to be judged.
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

if [ "$standin" = none ]; then
    echo "terraform: without a stand-in, as asked: the format alone was judged"
    exit 0
elif [ ! -d "$standin" ]; then
    echo "terraform: no stand-in in $standin (INFRA_STANDIN)" >&2
    exit 1
fi

# Schemas of the types that are used here, from the published bindings.
mkdir -p "$cache/aws" "$cache/archive"
used="$(grep -rhoE '^(resource|data) "aws_[a-z0-9_]+"' "$root/infra/terraform" |
    sort -u | sed -E 's/resource "(.*)"/\1/; s/data "(.*)"/data.\1/')"
if [ "$used" != "$(cat "$cache/used" 2>/dev/null)" ]; then
    if [ ! -d "$cache/node_modules/@cdktf/provider-aws" ]; then
        npm install --prefix "$cache" --ignore-scripts --no-audit --no-fund --legacy-peer-deps \
            --loglevel=error @cdktf/provider-aws@21.22.1
    fi
    # shellcheck disable=SC2086 # one argument a type
    "$tools/python3" "$standin/extract.py" "$cache/node_modules/@cdktf/provider-aws/lib" \
        "$cache/aws/schema.json" $used
    echo "$used" >"$cache/used"
fi
"$tools/python3" "$root/infra/verify/schemas.py" "$cache/aws/schema.json" "$cache/archive/schema.json"
for provider in aws archive; do
    cp "$standin/provider.py" "$cache/$provider/"
    printf '#!/bin/sh\nexec "%s" "%s" "%s"\n' "$tools/python3" "$root/infra/verify/standin.py" \
        "$cache/$provider/provider.py" >"$cache/$provider/terraform-provider-$provider"
    chmod +x "$cache/$provider/terraform-provider-$provider"
done
cat >"$cache/terraformrc" <<RC
provider_installation {
  dev_overrides {
    "hashicorp/aws"     = "$cache/aws"
    "hashicorp/archive" = "$cache/archive"
  }
  direct {}
}
RC
export TF_CLI_CONFIG_FILE="$cache/terraformrc" TF_IN_AUTOMATION=1 CHECKPOINT_DISABLE=1

# A copy, so that nothing is left in the checkout.
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cp -r "$root/infra" "$work/"
quiet() {
    "$@" >"$work/output" 2>&1 || { cat "$work/output" >&2 && exit 1; }
}
cd "$work/infra/terraform"
# The state's bucket needs an account.
sed -i '/backend "s3"/,/^  }/d' versions.tf
quiet terraform get -no-color
quiet terraform validate -no-color
echo "terraform: the whole is valid"

for tests in "$work"/infra/terraform/modules/*/; do
    [ -d "$tests/tests" ] || { echo "terraform: $tests has no tests" >&2 && exit 1; }
done
for tests in "$work"/infra/terraform/modules/*/tests/ "$work"/infra/terraform/tests/; do
    cd "$tests/.."
    quiet terraform get -no-color -test-directory=tests
    quiet terraform test -no-color
    echo "terraform: $(basename "$PWD"): $(grep -cE '^  run .* pass$' "$work/output") passed"
done

# Plans as an operator makes them: with the script, and with the settings of the example.
cd "$work/infra/terraform"
mkdir "$work/plans"
for environment in $(python3 -c 'import json, sys; print(*json.load(open(sys.argv[1]))["environments"])' \
    "$work/infra/environments.json"); do
    cp envs/example.tfvars "envs/$environment.tfvars"
    TF_DATA_DIR=".terraform/$environment" quiet terraform get -no-color
    quiet ./run "$environment" plan -no-color -input=false -lock=false -out "$work/$environment.plan"
    ./run "$environment" show -json "$work/$environment.plan" >"$work/plans/$environment.json"
    echo "terraform: $environment: $(grep -E '^Plan:' "$work/output")"
done
"$tools/python3" "$root/infra/verify/plans.py" "$work"/plans/*.json
# Policies see values in the plans, and texts that are known only later in the source.
policies() {
    "$tools/checkov" --quiet --compact --skip-download --config-file "$root/infra/verify/checkov.yml" "$@"
}
policies --directory "$work/plans" --framework terraform_plan
policies --directory "$root/infra/terraform" --framework terraform
"$tools/python3" "$root/infra/verify/contract_plans.py" "$work/plans"
