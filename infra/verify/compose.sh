#!/usr/bin/env bash
# Compose understands infra/compose, every file that it mounts is there, and nginx and
# Prometheus accept what they would get.
set -euo pipefail
# shellcheck source=infra/verify/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
tools="${INFRA_TOOLS:-$root/target/infra/bin}"
compose="$root/infra/compose"
docker-compose -f "$compose/compose.yml" config >"$work/resolved.yml" || fail "not what Compose takes"
"$tools/check-jsonschema" --builtin-schema vendor.compose-spec "$compose/compose.yml"
sed -n 's/^ *- \(\/[^:]*\):.*:ro$/\1/p' "$work/resolved.yml" >"$work/mounted"
[ "$(wc -l <"$work/mounted")" -ge 7 ] || fail "mounts were not found"
while read -r path; do
    [ -e "$path" ] || fail "$path is mounted and does not exist"
done <"$work/mounted"

# The same files at the same places, as far as they matter here.
cp -r "$root/infra/monitoring/prometheus" "$work/prometheus"
cp -r "$compose/targets" "$work/prometheus/targets"
promtool check config "$work/prometheus/prometheus.yml" >"$work/promtool.log" || fail "Prometheus objects"
# The name `node` is known only among the containers.
"$root/infra/edge/nginx/render.sh" 8081 "$work/cache" 127.0.0.1:8080 >"$work/default.conf"
printf 'pid %s/pid; error_log stderr;\nevents {}\nhttp { include %s/default.conf; }\n' "$work" "$work" >"$work/nginx.conf"
nginx -t -q -e stderr -c "$work/nginx.conf" -p "$work" || fail "nginx objects"
echo "compose: resolved, and its configurations are accepted"
