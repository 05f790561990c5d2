#!/bin/sh
# Prints pulse-node.conf for these nodes: render.sh LISTEN CACHE_DIR NODE...
set -eu
listen="$1" cache="$2"
shift 2
nodes=""
for node in "$@"; do
    nodes="$nodes    server $node max_fails=2 fail_timeout=5s;\\
"
done
sed -e "s#@LISTEN@#$listen#" -e "s#@CACHE@#$cache#" -e "s#^@NODES@#${nodes%??}#" \
    "$(dirname "$0")/pulse-node.conf"
