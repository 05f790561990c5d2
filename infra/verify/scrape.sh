#!/usr/bin/env bash
# A real Prometheus with our configuration scrapes a live node; every rule evaluates and
# every expression of the dashboards is understood.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
node="${PULSE_NODE:-${CARGO_TARGET_DIR:-$root/target}/release/pulse-node}"
work="$(mktemp -d)"
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

fail() {
    echo "scrape: $1" >&2
    tail -n 20 "$work"/*.log >&2
    exit 1
}
# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
    local deadline=$((SECONDS + $1)) what="$2"
    until "${@:3}" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$what"
        sleep 0.2
    done
}
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

PULSE_HTTP__OPS_ADDR=127.0.0.1:0 "$node" --simulate --data-dir "$work/node" \
    --http-addr 127.0.0.1:0 >"$work/node.log" 2>&1 &
pids+=($!)
wait_for 60 "the node does not listen" test -s "$work/node/listen.json"
ops="$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["ops"])' "$work/node/listen.json")"
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
    curl -sf "http://127.0.0.1:$port/api/v1/query?query=pulse_ready" | grep -q '"1"\]'
}
wait_for 60 "Prometheus does not see the node" ready_seen
evaluated() {
    ! curl -sf "http://127.0.0.1:$port/api/v1/rules" | grep -q '"health":"unknown"'
}
wait_for 60 "the rules are not evaluated" evaluated
"$root/infra/verify/monitoring.py" --live "http://127.0.0.1:$port"
echo "scrape: every rule and every panel was answered"
