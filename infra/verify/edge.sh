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
export WAIT_FOR_NODE="$root/infra/edge/haproxy/wait-for-node.lua"
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
! grep -E 'Connect from|127\.0\.0\.1:[0-9]+ \[' "$work/haproxy.log" || fail "HAProxy logs who asks"

# --- HAProxy's pool and circuit breaker, in front of one that answers slowly and counts
cat >"$work/slow.py" <<'SLOW'
import http.server, sys, threading, time

lock, now, most, connections = threading.Lock(), 0, 0, 0


class Slow(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        global connections
        with lock:
            connections += 1
        super().setup()

    def do_GET(self):
        global now, most
        body = f"{most} {connections}\n".encode()
        if self.path == "/slow":
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.3)
            with lock:
                now -= 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 512


Server(("127.0.0.1", int(sys.argv[1])), Slow).serve_forever()
SLOW
slow_port="$(free_port)"
start_slow() {
    python3 "$work/slow.py" "$slow_port" 2>>"$work/slow.log" &
    slow=$!
    pids+=("$slow")
    wait_for 30 "the slow one does not answer" curl -sf "http://127.0.0.1:$slow_port/health"
}
start_slow
second="127.0.0.1:$(free_port)"
PUBLIC_HTTP="$second" PUBLIC_HTTPS="127.0.0.1:$(free_port)" CERTS="$work/both.pem" NODE_1="127.0.0.1:$slow_port" \
    NODE_2="127.0.0.1:$(free_port)" NODE_3="127.0.0.1:$(free_port)" \
    haproxy -W -f "$root/infra/edge/haproxy/haproxy.cfg" >"$work/haproxy-slow.log" 2>&1 &
pids+=($!)
wait_for 30 "HAProxy does not answer" curl -sf "http://$second/count"
sleep 5 # until the other two are known not to be there
seq 200 | sed "s#.*#url = \"http://$second/slow\"\noutput = /dev/null#" >"$work/many"
curl -s -Z --parallel-immediate --parallel-max 200 -K "$work/many" -w '%{http_code}\n' 2>/dev/null | sort | uniq -c >"$work/codes.log"
[ "$(tr -s ' ' <"$work/codes.log")" = " 200 200" ] || fail "not all of 200 requests at once are answered"
read -r most connections < <(curl -sf "http://$second/count")
[ "$most" -eq 50 ] || fail "a node gets $most requests at a time, not 50"
# Besides these 50 checks and this script's own questions.
[ "$connections" -lt 100 ] || fail "$connections connections for 200 requests: they are not kept"
# It goes, and comes back at once: after three failures it is left out for five to ten seconds, and
# who asks meanwhile waits.
kill "$slow"
wait "$slow" 2>/dev/null || true
# It is the last one, so whoever is on the way to it gets a 503.
seq 10 | sed "s#.*#url = \"http://$second/count\"\noutput = /dev/null#" >"$work/many"
curl -s -Z --parallel-immediate -K "$work/many" 2>/dev/null || true
asked="$(date +%s%N)"
curl -s -m 30 -o /dev/null -w '%{http_code}' "http://$second/count" >"$work/waited" &
waiting=$!
start_slow
wait "$waiting"
waited="$(($(date +%s%N) - asked))"
[ "$(cat "$work/waited")" = 200 ] || fail "who asks while no node is there gets $(cat "$work/waited")"
[ "$waited" -gt 4000000000 ] || fail "a node that failed is asked again after $((waited / 1000000)) ms"
[ "$waited" -lt 15000000000 ] || fail "who asks while no node is there waits for $((waited / 1000000)) ms"
# With nobody coming back, 2 + 4 + 8 seconds later it is a 503.
kill "$slow"
wait "$slow" 2>/dev/null || true
sleep 5
asked="$(date +%s%N)"
[ "$(curl -s -m 30 -o /dev/null -w '%{http_code}' "http://$second/count")" = 503 ] || fail "no node, and no 503"
waited="$(($(date +%s%N) - asked))"
[ "$waited" -gt 13900000000 ] && [ "$waited" -lt 17000000000 ] || fail "the 503 comes after $((waited / 1000000)) ms"

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
echo "edge: cache, pool, failover, tries, stale answers and limits work"
