# shellcheck shell=bash
# What the scenes of this folder share; sourced. Sets `work`, a folder that is removed at
# the end, together with every process in `pids`.
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
# shellcheck disable=SC2034
node="${NODE_BINARY:-${CARGO_TARGET_DIR:-$root/target}/release/pulse-node}"
scene="$(basename "$0" .sh)"
work="$(mktemp -d)"
pids=()

# Ends what was started; scenes with more to undo define `undo`.
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    if declare -F undo >/dev/null; then undo; fi
    rm -rf "$work"
}
trap finish EXIT

# fail MESSAGE: ends the scene, and shows the ends of all logs.
fail() {
    echo "$scene: $1" >&2
    tail -n 30 "$work"/*.log >&2
    exit 1
}
# wait_for SECONDS MESSAGE COMMAND...: until the command succeeds.
wait_for() {
    local deadline=$((SECONDS + $1)) message="$2"
    until "${@:3}" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$message"
        sleep 0.2
    done
}
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
# listens FILE NAME: an address in a node's listen.json.
listens() {
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$@"
}
