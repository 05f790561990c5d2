#!/usr/bin/env bash
# A real Prometheus with our configuration scrapes a live node; every rule evaluates and
# every expression of the dashboards is understood.
set -euo pipefail
# shellcheck source=infra/verify/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PULSE_HTTP__OPS_ADDR=127.0.0.1:0 "$node" --simulate --data-dir "$work/node" \
    --http-addr 127.0.0.1:0 >"$work/node.log" 2>&1 &
pids+=($!)
wait_for 60 "the node does not listen" test -s "$work/node/listen.json"
ops="$(listens "$work/node/listen.json" ops)"
wait_for 60 "the node is not ready" curl -sf "http://$ops/health"

cp -r "$root/infra/monitoring/prometheus" "$work/prometheus"
mkdir "$work/prometheus/targets"
echo "[{\"targets\": [\"$ops\"], \"labels\": {\"host\": \"one\"}}]" >"$work/prometheus/targets/pulse-node.json"
# Only faster: a test cannot wait for a scrape every fifteen seconds.
sed -i 's/_interval: 15s/_interval: 1s/' "$work/prometheus/prometheus.yml"
port="$(free_port)"
prometheus --config.file="$work/prometheus/prometheus.yml" --storage.tsdb.path="$work/tsdb" \
    --web.listen-address="127.0.0.1:$port" >"$work/prometheus.log" 2>&1 &
pids+=($!)
ready_seen() {
    curl -sf "http://127.0.0.1:$port/api/v1/query?query=pulse_ready" | grep '"1"\]' >/dev/null
}
wait_for 60 "Prometheus does not see the node" ready_seen
evaluated() {
    curl -sf -o "$work/rules.json" "http://127.0.0.1:$port/api/v1/rules" && ! grep -q '"health":"unknown"' "$work/rules.json"
}
wait_for 60 "the rules are not evaluated" evaluated
"$root/infra/verify/monitoring.py" --live "http://127.0.0.1:$port"
echo "scrape: every rule and every panel was answered"
