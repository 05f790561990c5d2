#!/usr/bin/env bash
# nginx and HAProxy with our configurations in front of live nodes: cache, answers while the
# node is down, failover, limits, and nothing of the operator's.
set -euo pipefail
# shellcheck source=infra/verify/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# start_node NAME: sets `started` and `addr`. A simulated chain, the same in every node, that does not grow meanwhile.
start_node() {
    "$node" --simulate --data-dir "$work/$1" --http-addr 127.0.0.1:0 >>"$work/$1.log" 2>&1 &
    started=$!
    pids+=("$started")
    wait_for 60 "$1 does not listen" test -s "$work/$1/listen.json"
    addr="$(listens "$work/$1/listen.json" http)"
    wait_for 120 "$1 is not ready" curl -sf "http://$addr/health"
}
export PULSE_NODE__SIMULATE_INTERVAL_SECS=3600
start_node one
pid_one=$started addr_one=$addr
start_node two
pid_two=$started addr_two=$addr

# --- HAProxy
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost \
    -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
cat "$work/cert.pem" "$work/key.pem" >"$work/both.pem"
plain="127.0.0.1:$(free_port)" tls="127.0.0.1:$(free_port)"
# The third node is one that is not there.
PUBLIC_HTTP="$plain" PUBLIC_HTTPS="$tls" CERTS="$work/both.pem" \
    NODE_1="$addr_one" NODE_2="$addr_two" NODE_3="127.0.0.1:$(free_port)" \
    haproxy -W -f "$root/infra/edge/haproxy/haproxy.cfg" >"$work/haproxy.log" 2>&1 &
pids+=($!)
wait_for 30 "HAProxy does not answer" curl -sf "http://$plain/blocks/tip/height"
curl -sfk --tlsv1.3 --http2 "https://$tls/blocks/tip/height" >/dev/null || fail "no answer over TLS"
for path in /metrics /stats /internal/mempool/txs; do
    [ "$(curl -s -o /dev/null -w '%{http_code}' "http://$plain$path")" = 404 ] || fail "$path is public"
done
# One of two nodes stops under load: no request fails.
(
    failed=0
    for _ in $(seq 200); do
        curl -sf -m 10 "http://$plain/blocks/tip/height" >/dev/null || failed=$((failed + 1))
    done
    echo "$failed" >"$work/failed"
) &
load=$!
sleep 0.5
kill "$pid_one"
wait "$load"
[ "$(cat "$work/failed")" -eq 0 ] || fail "$(cat "$work/failed") of 200 requests failed while a node stopped"
seq 1200 | sed "s#.*#url = \"http://$plain/blocks/tip/height\"\noutput = /dev/null#" >"$work/many"
curl -s -K "$work/many" -w '%{http_code}\n' | sort | uniq -c >"$work/codes.log"
grep -q ' 429$' "$work/codes.log" || fail "HAProxy limits nobody"
curl -si "http://$plain/blocks/tip/height" | grep -i '^retry-after: 10' >/dev/null || fail "429 without Retry-After"

# --- nginx
front="127.0.0.1:$(free_port)"
mkdir "$work/nginx"
"$root/infra/edge/nginx/render.sh" "$front" "$work/nginx/cache" "$addr_two" >"$work/nginx/pulse-node.conf"
cat >"$work/nginx/nginx.conf" <<CONF
pid $work/nginx/pid;
error_log $work/nginx.log;
events {}
http {
    client_body_temp_path $work/nginx/body;
    proxy_temp_path $work/nginx/proxy;
    fastcgi_temp_path $work/nginx/fastcgi;
    uwsgi_temp_path $work/nginx/uwsgi;
    scgi_temp_path $work/nginx/scgi;
    include $work/nginx/pulse-node.conf;
}
CONF
nginx -e "$work/nginx.log" -c "$work/nginx/nginx.conf" -p "$work/nginx" -g 'daemon off; user root;' &
pids+=($!)
hash="$(curl -sf "http://$addr_two/block-height/1")"
cached() { curl -sfi "http://$front/block/$hash" | tr -d '\r' | awk 'tolower($1) == "x-cache-status:" {print $2}'; }
wait_for 30 "nginx does not answer" curl -sf "http://$front/blocks/tip/height"
[ "$(cached)" = MISS ] || fail "the first answer comes from the cache"
[ "$(cached)" = HIT ] || fail "the second answer does not come from the cache"
[ "$(curl -s -o /dev/null -w '%{http_code}' "http://$front/api/metrics")" = 404 ] || fail "/metrics is public"
height="$(curl -sf "http://$front/blocks/tip/height")"
kill "$pid_two"
wait "$pid_two" || true
[ "$(cached)" = HIT ] || fail "what cannot change is not served while the node is down"
sleep 11
[ "$(curl -sf "http://$front/blocks/tip/height")" = "$height" ] || fail "nothing stale is served while the node is down"
seq 600 | sed "s#.*#url = \"http://$front/block/$hash\"\noutput = /dev/null#" >"$work/many"
curl -s -Z --parallel-max 20 -K "$work/many" -w '%{http_code}\n' 2>/dev/null | sort | uniq -c >"$work/codes.log"
grep -q ' 429$' "$work/codes.log" || fail "nginx limits nobody"
echo "edge: cache, failover, stale answers and limits work"
