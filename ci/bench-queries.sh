#!/usr/bin/env bash
# Queries under load, on the chain and the data folder that ci/bench.sh leaves: for each
# kind of query its rate with 8 connections of one client thread on the same machine, the
# median and the 99th percentile of its time, the node's processor time, and how often it
# read the block files (preads) and the table files of the index (RocksDB blocks that were
# not in its cache). Then the same reads and the time of single calls after a restart with
# an empty page cache, if this user may empty it.
#
# Most rows ask for the same few thousand things again and again, as wallets and services do:
# what the index remembers between two blocks is part of what is measured. The rows of many
# different transactions show what is not remembered, and so do the single calls.
#
#   BLOCKS=1600 TXS=1300 SEED=1 DURATION=10 COLD_CALLS=50 ROWS=status ci/bench-queries.sh
#
# Prints rows for docs/benchmarks.md. DATA names another data folder, CHAIN another chain.
set -euo pipefail
"$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# shellcheck source=ci/bench-lib.sh
. ci/bench-lib.sh

# Seconds of load per row, after a second of warming up.
duration="${DURATION:-10}"
# Single calls per row with empty caches.
cold_calls="${COLD_CALLS:-50}"
# Rows to measure: those whose name has this regular expression.
rows="${ROWS:-.}"

data="${DATA:-$bench_dir/full/data}"
lists="$bench_dir/queries"

tools=()
for tool in wrk jq; do
    command -v "$tool" >/dev/null || tools+=("$tool")
done
if [ "${#tools[@]}" -gt 0 ]; then
    echo "bench-queries: installing ${tools[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${tools[@]}"
fi
build_binaries
[ -s "$chain" ] && [ -d "$data" ] || fail "no $chain or no $data: run ci/bench.sh with the same BLOCKS, TXS and SEED first"
mkdir -p "$lists"

is_synced() {
    curl -sf --max-time 5 -o /dev/null "http://$http_addr/health"
}

# Lines of URLs on standard input, their answers on standard output, over one connection.
fetch() {
    sed "s|^|url = \"http://$http_addr|; s|\$|\"|" | curl -sf --max-time 600 -K -
}

start_node() {
    rm -f "$data/listen.json"
    "$node" --network regtest --data-dir "$data" "${connect[@]}" --http-addr 127.0.0.1:0 \
        >"$lists/node.log" 2>&1 &
    node_pid="$!"
    wait_for_listener "$data"
    wait_until "the node to be synced" is_synced
}

stop_node() {
    kill -TERM "$node_pid"
    wait "$node_pid" || fail "the node did not stop cleanly: see $lists/node.log"
    node_pid=
}

# Preads of block files, RocksDB blocks read, bytes from the disk, processor ticks.
readings() {
    local metrics
    metrics="$(api /metrics)"
    echo "$(metric pulse_blockfile_reads_total <<<"$metrics") $(metric pulse_db_block_reads_total <<<"$metrics")" \
        "$(awk '/^read_bytes/ { print $2 }' "/proc/$node_pid/io" 2>/dev/null || echo 0)" \
        "$(awk '{ print $14 + $15 }' "/proc/$node_pid/stat")"
}

# The lists: random blocks, their transactions, and who is paid by those.
collect() {
    local tip
    tip="$(api /blocks/tip/height)"
    awk -v seed="$seed" -v tip="$tip" 'BEGIN { srand(seed); for (i = 0; i < 200; i++) print "/block-height/" 110 + int(rand() * (tip - 115)) }' |
        fetch | fold -w 64 >"$lists/blocks"
    # Of each block the transactions of the second page, if it has one.
    sed 's|.*|/block/&|' "$lists/blocks" | fetch | jq -r 'select(.tx_count > 50) | .id' >"$lists/big-blocks"
    sed 's|.*|/block/&/txs/25|' "$lists/big-blocks" | fetch >"$lists/txs.json"
    jq -r '.[].txid' "$lists/txs.json" >"$lists/txids"
    # All of these blocks: most are asked for once.
    sed 's|.*|/block/&/txids|' "$lists/big-blocks" | fetch | jq -r '.[]' >"$lists/all-txids"
    jq -rs '.[][0].txid' "$lists/txs.json" >"$lists/apart"
    jq -r '.[].vout[].scriptpubkey_address // empty' "$lists/txs.json" | sort >"$lists/all-addresses"
    uniq -c "$lists/all-addresses" | sort -rn | awk '{ print $2 }' >"$lists/by-traffic"
    # The busiest, and of the busy ones that with most unspent outputs.
    head -1 "$lists/by-traffic" >"$lists/hot"
    head -14 "$lists/by-traffic" | sed 's|.*|/address/&|' | fetch |
        jq -rs 'max_by(.chain_stats | .funded_txo_count - .spent_txo_count) | .address' >"$lists/hoard"
    tail -n +15 "$lists/by-traffic" | shuf -n 5000 --random-source=<(yes) >"$lists/addresses"
}

cat >"$lists/load.lua" <<'LUA'
local requests, number = {}, 0
function init(args)
    math.randomseed(tonumber(args[1]))
    for line in io.lines(args[2]) do
        requests[#requests + 1] = wrk.format("GET", args[3] .. line .. args[4])
    end
end
function request()
    return requests[math.random(#requests)]
end
function done(summary, latency)
    local errors = summary.errors
    io.write(string.format("RESULT %.0f %.3f %.3f %d %d\n", summary.requests / summary.duration * 1e6,
        latency:percentile(50) / 1000, latency:percentile(99) / 1000, summary.requests,
        errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
LUA

# load SECONDS LIST PREFIX SUFFIX
load() {
    wrk -t1 -c8 -d"$1" --timeout 30s -s "$lists/load.lua" "http://$http_addr" -- "$seed" "$lists/$2" "$3" "$4" |
        sed -n 's/^RESULT //p'
}

# warm NAME LIST PREFIX SUFFIX
warm() {
    local name="$1" before after result
    shift
    load 1s "$@" >/dev/null
    read -ra before <<<"$(readings)"
    read -ra result <<<"$(load "${duration}s" "$@")"
    read -ra after <<<"$(readings)"
    [ "${result[4]}" = 0 ] || fail "${result[4]} answers of $name were errors"
    printf '| %s | %s | %s ms | %s ms | %s us | %s | %s |\n' "$name" "${result[0]}" "${result[1]}" "${result[2]}" \
        "$(calc 1 "(${after[3]} - ${before[3]}) * 1e6 / $(getconf CLK_TCK) / ${result[3]}")" \
        "$(calc 2 "(${after[0]} - ${before[0]}) / ${result[3]}")" "$(calc 3 "(${after[1]} - ${before[1]}) / ${result[3]}")"
}

# cold NAME LIST PREFIX SUFFIX: the first calls after a restart with empty caches.
cold() {
    local name="$1" list="$2" count before after times
    empty_caches
    shuf -n "$cold_calls" --random-source=<(yes) "$lists/$list" |
        sed "s|.*|url = \"http://$http_addr$3&$4\"\noutput = \"/dev/null\"|" >"$lists/calls"
    count="$(grep -c ^url "$lists/calls")"
    api /blocks/tip/height >/dev/null
    read -ra before <<<"$(readings)"
    curl -sf --max-time 600 -w '%{time_pretransfer} %{time_total}\n' -K "$lists/calls" >"$lists/times"
    read -ra after <<<"$(readings)"
    times="$(awk '{ print ($2 - $1) * 1000 }' "$lists/times" | sort -n |
        awk '{ t[NR] = $1 } END { printf "%.2f ms | %.2f ms", t[int((NR + 1) / 2)], t[NR] }')"
    printf '| %s | %s | %s | %s | %s | %s |\n' "$name" "$count" "$times" \
        "$(calc 2 "(${after[0]} - ${before[0]}) / $count")" "$(calc 2 "(${after[1]} - ${before[1]}) / $count")" \
        "$(calc 1 "(${after[2]} - ${before[2]}) / 1024 / $count")"
}

empty_caches() {
    stop_node
    sync
    if ! { echo 3 >/proc/sys/vm/drop_caches; } 2>/dev/null; then
        # Without the right to empty it all, at least our files go.
        find "$data" -type f -size +0 -exec dd if={} iflag=nocache count=0 status=none \;
    fi
    start_node
}

start_peer queries-peer
start_node
step "collecting what to ask for" collect
hot="$(cat "$lists/hot")"
hoard="$(cat "$lists/hoard")"
hot_txs="$(api "/address/$hot" | jq .chain_stats.tx_count)"
hoard_utxos="$(api "/address/$hoard" | jq '.chain_stats | .funded_txo_count - .spent_txo_count')"
# So that it remembers nothing of all this.
stop_node
start_node

# Rows whose name has the expression of ROWS: row RUN NAME LIST PREFIX SUFFIX
row() {
    local run="$1" name="$2"
    shift 2
    if grep -qE -e "$rows" <<<"$name"; then
        "$run" "$name" "$@"
    fi
}

all_rows() {
    local run="$1" different
    different="($(wc -l <"$lists/all-txids") different)"
    row "$run" '`/tx/:txid`' txids /tx/ ''
    row "$run" "\`/tx/:txid\` $different" all-txids /tx/ ''
    row "$run" '`/tx/:txid/status`' txids /tx/ /status
    row "$run" "\`/tx/:txid/status\` $different" all-txids /tx/ /status
    row "$run" '`/tx/:txid/outspends`' txids /tx/ /outspends
    row "$run" "\`/tx/:txid/outspends\` $different" all-txids /tx/ /outspends
    row "$run" '`/address/:a` (ordinary)' addresses /address/ ''
    row "$run" "\`/address/:a\` ($hot_txs transactions)" hot /address/ ''
    row "$run" '`/address/:a/txs` (ordinary)' addresses /address/ /txs
    row "$run" "\`/address/:a/txs\` ($hot_txs transactions)" hot /address/ /txs
    row "$run" "\`/address/:a/utxo\` ($hoard_utxos outputs)" hoard /address/ /utxo
    row "$run" '`/block/:h/txs/25`' big-blocks /block/ /txs/25
    row "$run" '`/block/:h/txids`' big-blocks /block/ /txids
    row "$run" '`/block/:h/raw`' big-blocks /block/ /raw
    row "$run" '`/tx/:t/merkle-proof`' txids /tx/ /merkle-proof
    row "$run" '`/tx/:t/merkle-proof` (one per block)' apart /tx/ /merkle-proof
}

echo "Under load ($(wc -l <"$lists/txids") txids, $(wc -l <"$lists/addresses") addresses, $(wc -l <"$lists/big-blocks") blocks):"
echo
echo '| query | req/s | median | p99 | CPU of the node | preads of block files | RocksDB block reads |'
echo '|---|---|---|---|---|---|---|'
all_rows warm
if grep -qE -e "$rows" <<<merkle-proof; then
    stop_node
    PULSE_INDEX__TXIDS_CACHE_MIB=0 start_node
    row warm '`/tx/:t/merkle-proof` (no block cached)' apart /tx/ /merkle-proof
fi
if [ "$cold_calls" -gt 0 ]; then
    echo
    echo 'Single calls after a restart, page cache empty:'
    echo
    echo '| query | calls | median | slowest | preads of block files | RocksDB block reads | KiB from the disk |'
    echo '|---|---|---|---|---|---|---|'
    all_rows cold
fi
