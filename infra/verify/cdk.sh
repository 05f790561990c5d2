#!/usr/bin/env bash
# Types, assertions, synthesis and lint of infra/cdk, in a copy.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
tools="${INFRA_TOOLS:-$root/target/infra/bin}"
cache="${CARGO_TARGET_DIR:-$root/target}/infra/cdk"
mkdir -p "$cache"
# What was installed stays.
cp -r "$root"/infra/{environments.json,instance,lambda} "$cache/"
mkdir -p "$cache/cdk"
cp -r "$root"/infra/cdk/{bin,lib,test,cdk.json,package.json,package-lock.json,tsconfig.json} "$cache/cdk/"
cd "$cache/cdk"
if ! cmp -s package-lock.json node_modules/installed-lock.json; then
    npm ci --no-audit --no-fund --loglevel=error
    cp package-lock.json node_modules/installed-lock.json
fi
npx tsc --noEmit
npm test
rm -rf cdk.out
for environment in dev staging production; do
    AWS_DEFAULT_REGION=us-east-2 npx cdk synth --quiet --output "cdk.out/$environment" \
        -c "environment=$environment" -c version=1.2.3 -c artifacts=artifacts \
        -c certificate=arn:aws:acm:us-east-2:123456789012:certificate/1
done
# W3005: CDK names dependencies that references imply.
"$tools/cfn-lint" --ignore-checks W3005 -- cdk.out/*/*.template.json
echo "cdk: three environments are synthesised and linted"
