#!/usr/bin/env bash
# Whole runs: syncs a generated chain from local peers, once without an index (the
# kernel alone) and once as a full node, and appends a row to docs/benchmarks.md.
#
#   BLOCKS=1600 TXS=1300 SEED=1 PEERS=1 ci/bench.sh
set -euo pipefail
"$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# shellcheck source=ci/bench-lib.sh
. ci/bench-lib.sh

peers="${PEERS:-1}"
report=docs/benchmarks.md
# As large a part of each chain is loaded in bulk as of one of 1600 blocks by default.
export PULSE_INDEX__BULK_LAG_BLOCKS="${PULSE_INDEX__BULK_LAG_BLOCKS:-$((blocks * 5 / 16))}"

# Bytes of files, 0 if there are none.
bytes_of() {
    { cat "$@" 2>/dev/null || true; } | wc -c
}

chain_is_synced() {
    grep -q 'chain synced' "$dir/log"
}
index_is_at_tip() {
    [ "$(api /blocks/tip/height)" = "$blocks" ]
}

# Whether what a bulk load left has been merged, if there was one.
index_is_merged() {
    ! grep -q 'bulk load of the index begins' "$dir/log" ||
        grep -q 'bulk load are merged' "$dir/log"
}

# run NAME CONDITION SETTING...: syncs until the condition holds, stops cleanly, and sets
# wall_s, stop_s, cpu_s, peak_mib and, with an index, merge_s (from the tip to the end of
# merging). Processor time and memory are those of all of it.
run() {
    local name="$1" condition="$2" started synced merged measured stopped pid_file timer user system
    shift 2
    dir="$bench_dir/$name"
    pid_file="$dir/data/.lock"
    rm -rf "$dir"
    mkdir -p "$dir"
    started="$(now_us)"
    {
        TIMEFORMAT='%U %S'
        time env "$@" "$node" --network regtest --data-dir "$dir/data" "${connect[@]}" \
            --http-addr 127.0.0.1:0 >"$dir/log" 2>&1
    } 2>"$dir/cpu" &
    timer="$!"
    wait_for_listener "$dir/data"
    node_pid="$(cat "$pid_file")"
    wait_until "the end of the sync ($name)" "$condition"
    synced="$(now_us)"
    if [ "$condition" = index_is_at_tip ]; then
        wait_until "the index to be merged" index_is_merged
        merged="$(now_us)"
        merge_s="$(calc 1 "($merged - $synced) / 1e6")"
        # The sizes are noted after the end of merging.
        sleep 2
        api /metrics >"$dir/metrics"
    fi
    measured="$(now_us)"
    peak_mib="$(awk '/^VmHWM/ { printf "%.0f", $2 / 1024 }' "/proc/$node_pid/status")"
    kill -TERM "$node_pid"
    node_pid=
    wait "$timer" || fail "the node did not stop cleanly: see $dir/log"
    stopped="$(now_us)"
    wall_s="$(calc 1 "($synced - $started) / 1e6")"
    stop_s="$(calc 1 "($stopped - $measured) / 1e6")"
    read -r user system <"$dir/cpu"
    cpu_s="$(calc 1 "$user + $system")"
    echo "$name: $wall_s s, then $stop_s s to stop; $cpu_s CPU s; peak $peak_mib MiB"
}

build_binaries
make_chain
for ((number = 1; number <= peers; number++)); do
    start_peer "peer-$number"
done

run kernel chain_is_synced PULSE_INDEX__ENABLED=false
kernel_wall="$wall_s" kernel_cpu="$cpu_s" kernel_peak="$peak_mib"
run full index_is_at_tip
index_bytes="$(du -sb "$dir/data/index" | cut -f1)"
rows="$(metric pulse_index_rows_written_total <"$dir/metrics")"
ratio="$(calc 2 "$wall_s / $kernel_wall")"
bytes_per_tx="$(calc 1 "$index_bytes / $txs")"

# What of the index grows with the chain, and what does not.
table_bytes="$(metric pulse_db_file_bytes <"$dir/metrics")"
undo_bytes="$(metric pulse_db_file_bytes 'family="undo"' <"$dir/metrics")"
filter_bytes="$(metric pulse_db_file_bytes 'family="filter' <"$dir/metrics")"
row_bytes="$((table_bytes - undo_bytes - filter_bytes))"
wal_bytes="$(bytes_of "$dir"/data/index/*.log)"
log_bytes="$(bytes_of "$dir"/data/index/{LOG,LOG.old.*,MANIFEST-*,OPTIONS-*})"
sled_bytes="$(du -sb "$dir/data/meta" 2>/dev/null | cut -f1 || true)"
written="$(($(metric pulse_db_flushed_bytes_total <"$dir/metrics") + $(metric pulse_db_compacted_bytes_total <"$dir/metrics")))"
families=
for family in hist spend tx txpos utxo agg blk pos; do
    bytes="$(metric pulse_db_file_bytes "family=\"$family\"" <"$dir/metrics")"
    families+="$family $(calc 1 "$bytes / $txs"), "
done
ingest="| $(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown) | $blocks | $txs \
| $(calc 1 "$row_bytes / $txs") (${families%, }) \
| $(calc 1 "$undo_bytes / 1e6"), $(calc 1 "$wal_bytes / 1e6"), $(calc 1 "$log_bytes / 1e6"), $(calc 1 "${sled_bytes:-0} / 1e6") \
| $(calc 1 "($cpu_s - $kernel_cpu) * 1e6 / $txs") | $peak_mib | $(calc 2 "$written / $row_bytes") | $merge_s | $ratio |"
echo "ingestion: $ingest"

machine="$(nproc) x $(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -1), $(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo) GiB"
commit="$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)"
row="$(printf '| %s | %s | %s | %s | %s | %s s, %s CPU s, %s MiB | %s s, %s CPU s, %s MiB | %s | %s (%s) | %s | %s s |' \
    "$(date -u +%F)" "$commit" "$machine" "BLOCKS=$blocks TXS=$txs_per_block SEED=$seed PEERS=$peers" "$txs" \
    "$kernel_wall" "$kernel_cpu" "$kernel_peak" "$wall_s" "$cpu_s" "$peak_mib" "$ratio" \
    "$index_bytes" "$bytes_per_tx" "$rows" "$stop_s")"
echo "$row"
# Behind the last row of its table.
awk -v row="$row" '
    in_table && !/^\|/ { print row; in_table = 0; is_added = 1 }
    /^\| date \| commit \| machine \| chain \|/ { in_table = 1 }
    { print }
    END { if (in_table) print row; exit !(in_table || is_added) }' "$report" >"$report.new"
mv "$report.new" "$report"
