#!/usr/bin/env bash
# Whole nodes on a generated chain: one syncs from a peer of the Bitcoin protocol, then others,
# which have no such peer, from 1, 2 and 3 siblings. Prints a row for docs/benchmarks.md each.
#
#   BLOCKS=1600 TXS=1300 SEED=1 INDEX=false ci/bench-fleet.sh
set -euo pipefail
"$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# shellcheck source=ci/bench-lib.sh
. ci/bench-lib.sh

# With an index the kernel and the index are what takes the time, without it the kernel.
index="${INDEX:-false}"
dir="$bench_dir/fleet"
seeds=()
pids=()

# Processor time of a process up to now, in hundredths of a second.
ticks() {
    awk '{ print $14 + $15 }' "/proc/$1/stat"
}

chain_is_synced() {
    grep -q 'chain synced' "$dir/$name.log" &&
        { [ "$index" = false ] || [ "$(api /blocks/tip/height)" = "$blocks" ]; }
}

# Starts a node and waits until it has the chain, then lets it run: sync NAME ONLY_SIBLINGS ARGUMENT...
sync() {
    local only="$2" started source_ticks=0 pid list
    name="$1"
    shift 2
    list=
    [ "${#seeds[@]}" -eq 0 ] || list="$(printf '"%s",' "${seeds[@]}")"
    for pid in "${pids[@]}"; do
        source_ticks=$((source_ticks - $(ticks "$pid")))
    done
    started="$(now_us)"
    PULSE_INDEX__ENABLED="$index" PULSE_FLEET__LISTEN=127.0.0.1:0 PULSE_FLEET__KEY_FILE="$dir/key" \
        PULSE_FLEET__QUIC="${QUIC:-true}" PULSE_FLEET__LOOKUP_SECS=1 PULSE_FLEET__SEEDS="[${list%,}]" \
        PULSE_FLEET__ONLY_SIBLINGS="$only" \
        "$node" --network regtest --data-dir "$dir/$name" --http-addr 127.0.0.1:0 "$@" \
        >"$dir/$name.log" 2>&1 &
    node_pid="$!"
    server_pids+=("$node_pid")
    wait_for_listener "$dir/$name"
    wait_until "the end of the sync ($name)" chain_is_synced
    wall_s="$(calc 1 "($(now_us) - $started) / 1e6")"
    cpu_s="$(calc 1 "$(ticks "$node_pid") / 100")"
    for pid in "${pids[@]}"; do
        source_ticks=$((source_ticks + $(ticks "$pid")))
    done
    rate="$(calc 0 "$(stat -c %s "$chain") / 1e6 / $wall_s")"
    echo "| $name | $wall_s s | $rate MB/s | $cpu_s CPU s | $(calc 1 "$source_ticks / 100") CPU s |"
    pids+=("$node_pid")
    # Of the log: without an index there is no /stats.
    seeds+=("$(sed -n 's/.*fleet listens addr=\(.*tcp.*\)/\1/p' "$dir/$name.log")")
}

build_binaries
make_chain
rm -rf "$dir"
mkdir -p "$dir"
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$dir/key"
start_peer peer-fleet
echo "BLOCKS=$blocks TXS=$txs_per_block SEED=$seed INDEX=$index, $(stat -c %s "$chain") bytes, $(git rev-parse --short=12 HEAD)"
echo "| from | wall | blocks | the node's CPU | its sources' CPU |"
echo "|---|---|---|---|---|"
sync one-peer false "${connect[@]}"
sync 1-sibling true
sync 2-siblings true
sync 3-siblings true
