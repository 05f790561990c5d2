#!/usr/bin/env bash
# What infra/ says, judged by the tools that will read it: rules, routes, units, edge
# configurations; and a real Prometheus beside a live node. Fails where a tool is missing.
set -euo pipefail
"$(dirname "${BASH_SOURCE[0]}")/setup-infra.sh"
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

monitoring=infra/monitoring
step rules promtool check rules "$monitoring/prometheus/rules/pulse-node.yml"
step alerts promtool test rules "$monitoring/prometheus/tests/pulse-node.yml"
step routes infra/verify/routes.sh
step names infra/verify/monitoring.py
step unit infra/verify/unit.sh
step node cargo build --release --locked --workspace --all-targets
step scrape infra/verify/scrape.sh
