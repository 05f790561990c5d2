#!/usr/bin/env bash
# Types, assertions, rules (cdk-nag), synthesis, lint and policies of infra/cdk, in a copy.
# What is synthesised stays in the cache, for deploy.sh.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
tools="${INFRA_TOOLS:-$root/target/infra/bin}"
cache="${CARGO_TARGET_DIR:-$root/target}/infra/cdk"
mkdir -p "$cache/cdk"
# What was installed stays.
rm -rf "$cache"/{environments.json,instance,lambda} "$cache"/cdk/{bin,lib,test,cdk.out}
cp -r "$root"/infra/{environments.json,instance,lambda} "$cache/"
cp -r "$root"/infra/cdk/{bin,lib,test,cdk.json,package.json,package-lock.json,tsconfig.json} "$cache/cdk/"
cd "$cache/cdk"
if ! cmp -s package-lock.json node_modules/installed-lock.json; then
    npm ci --no-audit --no-fund --loglevel=error
    cp package-lock.json node_modules/installed-lock.json
fi
npx tsc --noEmit
npm test
# synth FOLDER CONTEXT...: as `cdk synth` does, in half its time.
synth() {
    local folder="$1" context
    context="$(printf '%s\n' "${@:2}" artifacts=artifacts admin=192.0.2.1/32 email=operator@example.com |
        python3 -c 'import json, sys; print(json.dumps(dict(line.strip().split("=", 1) for line in sys.stdin)))')"
    CDK_OUTDIR="cdk.out/$folder" CDK_CONTEXT_JSON="$context" node --import tsx bin/app.ts
}
certificate=certificate=arn:aws:acm:us-east-2:123456789012:certificate/1
zone=(zone=Z0123456789ABCDEFGHIJ zone_name=example.com)
synth dev environment=dev blue=1.2.3
synth dev-next environment=dev blue=1.2.4
synth staging environment=staging blue=1.2.3 domain=api.example.com "${zone[@]}"
synth production environment=production blue=1.2.3 domain=api.example.com "$certificate"
synth production-cutover environment=production blue=1.2.3 green=1.3.0 live=blue domain=api.example.com "$certificate"
# W3005: CDK names dependencies that references imply; I1022: and joins where it could substitute.
"$tools/cfn-lint" --non-zero-exit-code informational --include-checks I --ignore-checks W3005 I1022 -- cdk.out/*/*.template.json
"$tools/checkov" --directory cdk.out --framework cloudformation --quiet --compact --skip-download \
    --config-file "$root/infra/verify/checkov-cdk.yml"
echo "cdk: synthesised, linted, and within the policies: $(cd cdk.out && echo *)"
