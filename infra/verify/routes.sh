#!/usr/bin/env bash
# Alertmanager accepts its configuration, and each severity reaches its receiver.
set -euo pipefail
config="$(dirname "${BASH_SOURCE[0]}")/../monitoring/alertmanager/alertmanager.yml"
amtool check-config "$config"
# expect RECEIVER LABEL...
expect() {
    amtool config routes test --config.file="$config" --verify.receivers="$1" "${@:2}" 2>/dev/null
}
expect page severity=page alertname=PulseNodeDown
expect ticket severity=ticket alertname=PulseSlow
# Every alert goes where its severity says.
rules="$(dirname "${BASH_SOURCE[0]}")/../monitoring/prometheus/rules/pulse-node.yml"
severities="$(awk '/- alert:/ {name = $3} /severity:/ {gsub(/[{},]/, ""); print name, $3}' "$rules")"
[ "$(wc -l <<<"$severities")" -eq "$(grep -c -- '- alert:' "$rules")" ]
while read -r name severity; do
    expect "$severity" "severity=$severity" "alertname=$name"
done <<<"$severities"
# Nothing falls through.
expect ticket alertname=Unknown
