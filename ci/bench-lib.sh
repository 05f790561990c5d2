# shellcheck shell=bash
# What the scripts of the benchmarks share: the chain that they run on, the peer that serves
# it, and what they measure by. Sourced after env.sh.
#
#   BLOCKS=1600 TXS=1300 SEED=1 PATIENCE=3600

blocks="${BLOCKS:-1600}"
txs_per_block="${TXS:-1300}"
seed="${SEED:-1}"
# Seconds after which waiting counts as a failure.
patience="${PATIENCE:-3600}"

# shellcheck disable=SC2154 # env.sh sets it.
bench_dir="$target_dir/bench"
chain="${CHAIN:-$bench_dir/chain-$blocks-$txs_per_block-$seed-uneven.blk}"
node="${NODE:-$target_dir/release/pulse-node}"
serve="${SERVE:-$target_dir/release/pulse-serve-blocks}"
node_pid=
server_pids=()

fail() {
    echo "$(basename "$0" .sh): $*" >&2
    exit 1
}

cleanup() {
    [ -z "$node_pid" ] || kill "$node_pid" 2>/dev/null || true
    [ "${#server_pids[@]}" -eq 0 ] || kill "${server_pids[@]}" 2>/dev/null || true
}
trap cleanup EXIT

# The node and the peer. The selection of packages is that of the tests: another one has other
# features of the same crates, and would build RocksDB and the kernel once more.
build_binaries() {
    [ -n "${NODE:-}" ] && [ -n "${SERVE:-}" ] ||
        step build cargo build --release --locked --workspace --bins --test main
    mkdir -p "$bench_dir"
}

# Makes the chain, unless it is there, and sets txs, the number of its transactions.
make_chain() {
    if [ ! -s "$chain.summary" ]; then
        step "generating the chain" "$node" simulate --blocks "$blocks" --txs-per-block "$txs_per_block" \
            --seed "$seed" --uneven --out "$chain" | tee "$chain.making"
        mv "$chain.making" "$chain.summary"
    fi
    txs="$(sed -n 's/.* blocks, \([0-9]*\) transactions.*/\1/p' "$chain.summary")"
    [ -n "$txs" ] || fail "no number of transactions in $chain.summary; remove it"
}

# Serves the chain to the node, and adds how to reach it to connect: start_peer NAME
start_peer() {
    "$serve" --network regtest --file "$chain" >"$bench_dir/$1" 2>"$bench_dir/$1.log" &
    server_pids+=("$!")
    wait_until "a peer to listen" grep -qs ' on ' "$bench_dir/$1"
    connect+=(--connect "$(sed -n 's/^serving .* on //p' "$bench_dir/$1")")
}
connect=()

# Microseconds since 1970.
now_us() {
    echo "${EPOCHREALTIME/./}"
}

# A number of decimals of an expression: calc DECIMALS EXPRESSION
calc() {
    awk "BEGIN { printf \"%.$1f\", $2 }"
}

# Waits until a command succeeds: wait_until WHAT COMMAND...
wait_until() {
    local what="$1" deadline=$((SECONDS + patience))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "gave up waiting for $what"
        [ -z "$node_pid" ] || kill -0 "$node_pid" 2>/dev/null || fail "the node has ended while waiting for $what"
        sleep 0.1
    done
}

# Sets http_addr once the node of this data folder listens: wait_for_listener DATA
wait_for_listener() {
    wait_until "the node to start" test -s "$1/listen.json"
    http_addr="$(sed 's/.*"http":"\([^"]*\)".*/\1/' "$1/listen.json")"
}

# The answer to a GET: api PATH
api() {
    curl -sf --max-time 60 "http://$http_addr$1"
}

# Sum of a metric over its labels, from lines on standard input. With a second argument only of
# the lines that have it.
metric() {
    awk -v name="$1" -v label="${2:-}" '{ split($1, parts, "{") }
        parts[1] == name && index($0, label) { sum += $NF } END { printf "%.0f", sum }'
}
