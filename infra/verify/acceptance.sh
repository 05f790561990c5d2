#!/usr/bin/env bash
# The acceptance run of the self-hosted plan against a live node, for a shorter time than in
# earnest; and that it fails where a node is behind or goes away.
set -euo pipefail
# shellcheck source=infra/verify/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PULSE_NODE__SIMULATE_INTERVAL_SECS=5 "$node" --network regtest --simulate --data-dir "$work/node" \
    --http-addr 127.0.0.1:0 >"$work/node.log" 2>&1 &
pid=$!
pids+=("$pid")
wait_for 60 "the node does not listen" test -s "$work/node/listen.json"
url="http://$(listens "$work/node/listen.json" http)"
# With its first hundred blocks, which are made as fast as they can be.
is_grown() { [ "$(curl -sf "$url/blocks/tip/height")" -ge 120 ] && curl -sf "$url/health"; }
wait_for 120 "the node is not ready" is_grown
accept() { "$root/infra/acceptance.py" "$url" "$@" >"$work/acceptance.log" 2>&1; }
accept --secs 10 --reference "$url/api" || fail "a node that serves is not accepted"
cat "$work/acceptance.log"

# Another Esplora that is far ahead.
mkdir -p "$work/ahead/blocks/tip"
echo 1000000 >"$work/ahead/blocks/tip/height"
port="$(free_port)"
python3 -m http.server -d "$work/ahead" -b 127.0.0.1 "$port" >"$work/ahead.log" 2>&1 &
pids+=($!)
wait_for 30 "the other does not answer" curl -sf "http://127.0.0.1:$port/blocks/tip/height"
! accept --secs 1 --reference "http://127.0.0.1:$port" || fail "a node that is far behind is accepted"
grep -q "lag: at block" "$work/acceptance.log" || fail "it is not accepted for another reason"
# A node that goes away under load.
: >"$work/acceptance.log"
accept --secs 8 &
run=$!
wait_for 60 "the load does not begin" grep -q "a wallet of" "$work/acceptance.log"
kill "$pid"
! wait "$run" || fail "a node that goes away is accepted"
grep -q "requests failed" "$work/acceptance.log" || fail "it is not accepted for another reason"
echo "acceptance: passed by a node that serves, and by no other"
