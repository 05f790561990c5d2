#!/usr/bin/env bash
# Renders infra/kubernetes for each environment; every resource is checked against the schema
# of Kubernetes and of the operators, unknown fields refused, and by policies.
set -euo pipefail
# shellcheck source=infra/verify/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
tools="${INFRA_TOOLS:-$root/target/infra/bin}"
cache="${CARGO_TARGET_DIR:-$root/target}/infra/kubernetes"
# The oldest version that is supported by EKS without extra cost, or newer.
kubernetes=1.33

mkdir -p "$cache" "$work/types"
cp "$root"/infra/verify/kubernetes/package*.json "$cache/"
if ! cmp -s "$cache/package-lock.json" "$cache/node_modules/installed-lock.json"; then
    (cd "$cache" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    cp "$cache/package-lock.json" "$cache/node_modules/installed-lock.json"
fi

# types FILE...: custom resources as literals of the types that their operators' own definitions
# make, which the compiler then compares: names, values, and no field more.
types() {
    rm -rf "$cache/check"
    mkdir "$cache/check"
    "$tools/python3" - "$cache/check" "$@" <<'PYTHON'
import json, sys, yaml
MODELS = {
    "argoproj.io/v1alpha1": "@kubernetes-models/argo-cd/argoproj.io/v1alpha1",
    "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
}
count = 0
for path in sys.argv[2:]:
    for resource in yaml.safe_load_all(open(path)):
        if resource["apiVersion"] in MODELS:
            kind = resource["kind"]
            with open(f"{sys.argv[1]}/{count}.ts", "w") as file:
                file.write(f'import type {{ I{kind} }} from "{MODELS[resource["apiVersion"]]}/{kind}";\n'
                           f"export const resource: I{kind} = {json.dumps(resource)};\n")
            count += 1
if count == 0:
    sys.exit("no custom resources")
PYTHON
    (cd "$cache" && npx tsc --noEmit --strict --skipLibCheck --module nodenext --target es2022 check/*.ts)
}

for overlay in "$root"/infra/kubernetes/overlays/*/; do
    environment="$(basename "$overlay")"
    kubectl kustomize "$overlay" >"$work/$environment.yml" || fail "$environment cannot be rendered"
    "$tools/kubernetes-validate" --strict --quiet --no-warn -k "$kubernetes" "$work/$environment.yml" ||
        fail "$environment: not what Kubernetes $kubernetes takes"
done
types "$work"/*.yml "$root"/infra/kubernetes/argocd/*.yml || fail "a custom resource is not what its operator takes"
# What is wrong must be seen.
sed 's/interval: 15s/intervall: 15s/' "$work/dev.yml" >"$work/wrong.yml"
! types "$work/wrong.yml" >"$work/wrong.log" || fail "an unknown field of a custom resource passes"
sed 's/readOnlyRootFilesystem/readOnlyRoot/' "$work/dev.yml" >"$work/wrong.yml"
! "$tools/kubernetes-validate" --strict --quiet --no-warn -k "$kubernetes" "$work/wrong.yml" >"$work/wrong.log" 2>&1 ||
    fail "an unknown field passes"
rm "$work/wrong.yml"
"$tools/checkov" --directory "$work" --framework kubernetes --quiet --compact --skip-download \
    --config-file "$root/infra/verify/checkov-kubernetes.yml"
echo "kubernetes: all environments and their applications are valid"
