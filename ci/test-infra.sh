#!/usr/bin/env bash
# What infra/ says, judged by the tools that will read it: rules, routes, units, edge
# configurations, instances; and a real Prometheus beside a live node. Fails where a tool
# is missing.
set -euo pipefail
"$(dirname "${BASH_SOURCE[0]}")/setup-infra.sh"
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

target_dir="$(realpath -m "$target_dir")"
# NODE_BINARY names another binary to judge; it is then not built.
built="$target_dir/release/pulse-node"
export NODE_BINARY="${NODE_BINARY:-$built}" INFRA_TOOLS="$target_dir/infra/bin"
monitoring=infra/monitoring
step scripts shellcheck --severity=warning -x ci/*.sh infra/verify/*.sh infra/edge/nginx/render.sh \
    infra/instance/*.sh infra/instance/scripts/{archive,backup,restore,restore-test,drain-on-interruption,install-tunnel}
step rules promtool check rules "$monitoring/prometheus/rules/pulse-node.yml"
step alerts promtool test rules "$monitoring/prometheus/tests/pulse-node.yml"
step routes infra/verify/routes.sh
step names infra/verify/monitoring.py
step unit infra/verify/unit.sh
step workflows infra/verify/workflows.sh
step Dockerfile env PATH="$INFRA_TOOLS:$PATH" CI=true ci/docker.sh
step compose infra/verify/compose.sh
step kubernetes infra/verify/kubernetes.sh
step terraform infra/verify/terraform.sh
step group infra/verify/group.py
step shared infra/verify/shared.sh
step cdk infra/verify/cdk.sh
step deploy "$INFRA_TOOLS/python3" infra/verify/deploy.py "$target_dir/infra/cdk/cdk/cdk.out"
step lambda python3 infra/lambda/health_check/test_handler.py
[ "$NODE_BINARY" != "$built" ] || step node cargo build --release --locked --workspace --all-targets
step contract infra/verify/contract.py "$NODE_BINARY"
step containers "$INFRA_TOOLS/python3" infra/verify/containers.py "$NODE_BINARY"
step scrape infra/verify/scrape.sh
step "alerts by their causes" "$INFRA_TOOLS/python3" infra/verify/alerts.py
step archive "$INFRA_TOOLS/python3" infra/verify/archive.py
step acceptance infra/verify/acceptance.sh
step edge infra/verify/edge.sh
step instance infra/verify/instance.sh
step publish infra/verify/publish.sh
step artifact infra/verify/artifact.sh
