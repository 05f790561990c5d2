//! Names of the metrics of the index. No other file of this crate spells one.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use pulse_primitives::Height;

use crate::store::{audit::FamilyStats, durability::WrittenBytes};

const TIP_HEIGHT: &str = "pulse_index_tip_height";
const COMMIT_SECONDS: &str = "pulse_index_commit_seconds";
const BLOCKS: &str = "pulse_index_blocks_total";
const TRANSACTIONS: &str = "pulse_index_transactions_total";
const ROWS_WRITTEN: &str = "pulse_index_rows_written_total";
const FILTERS: &str = "pulse_index_filters";
const ROLLBACKS: &str = "pulse_index_rollbacks_total";
const STALE_POSITIONS: &str = "pulse_index_stale_positions_total";
const DAMAGED_BLOCKS: &str = "pulse_index_damaged_blocks";
const POSITIONS_RENEWED: &str = "pulse_index_positions_renewed_total";
const LAG_BLOCKS: &str = "pulse_index_lag_blocks";
const SECONDS_LEFT: &str = "pulse_index_seconds_left";
const BULK: &str = "pulse_index_bulk";
const MERGING: &str = "pulse_index_merging";
const DB_LOGGED_BYTES: &str = "pulse_db_logged_bytes_total";
const DB_FLUSHED_BYTES: &str = "pulse_db_flushed_bytes_total";
const DB_COMPACTED_BYTES: &str = "pulse_db_compacted_bytes_total";
const DB_FILE_BYTES: &str = "pulse_db_file_bytes";
const DB_MEMORY_BYTES: &str = "pulse_db_memory_bytes";
const DB_ROWS: &str = "pulse_db_rows";
const DB_CACHE_BYTES: &str = "pulse_db_cache_bytes";
const DB_BLOCK_READS: &str = "pulse_db_block_reads_total";
const DB_CACHE_HITS: &str = "pulse_db_cache_hits_total";
const DB_ERRORS: &str = "pulse_db_errors_total";

/// Kinds of errors of the index.
const DB_ERROR_KINDS: [&str; 4] = ["damaged", "io", "row", "other"];

/// Registers the help texts. Call once, after the recorder is installed.
pub fn describe() {
    describe_gauge!(TIP_HEIGHT, "Height of the newest indexed block");
    describe_histogram!(
        COMMIT_SECONDS,
        "Time to write one group of blocks, in seconds"
    );
    describe_counter!(BLOCKS, "Blocks indexed since the start");
    describe_counter!(TRANSACTIONS, "Transactions indexed since the start");
    describe_counter!(ROWS_WRITTEN, "Index rows written since the start");
    describe_gauge!(FILTERS, "Blocks from genesis on that have a compact filter");
    describe_counter!(ROLLBACKS, "Blocks taken back because of reorganisations");
    describe_counter!(
        STALE_POSITIONS,
        "Reads that found other bytes than recorded in the block files"
    );
    describe_gauge!(
        DAMAGED_BLOCKS,
        "Blocks that were asked for and that the block files do not hold as they should; 0 is right"
    );
    describe_counter!(POSITIONS_RENEWED, "Block positions that were recorded anew");
    describe_gauge!(LAG_BLOCKS, "Blocks that are still to be indexed");
    describe_gauge!(
        SECONDS_LEFT,
        "Time left until the index is at the best header, in seconds; 0 near it"
    );
    describe_gauge!(
        BULK,
        "1 while the index is loaded without a write-ahead log"
    );
    describe_gauge!(
        MERGING,
        "1 while the sorted runs of a bulk load are being merged"
    );
    describe_counter!(
        DB_LOGGED_BYTES,
        "Bytes written to the write-ahead log since the start"
    );
    describe_counter!(
        DB_FLUSHED_BYTES,
        "Bytes of table files written from memory since the start"
    );
    describe_counter!(
        DB_COMPACTED_BYTES,
        "Bytes of table files written from other table files since the start"
    );
    describe_gauge!(DB_FILE_BYTES, "Bytes in table files, by column family");
    describe_gauge!(
        DB_MEMORY_BYTES,
        "Bytes of rows not yet in table files, by column family"
    );
    describe_gauge!(DB_ROWS, "Estimated number of rows, by column family");
    describe_gauge!(DB_CACHE_BYTES, "Bytes of the block cache in use");
    describe_counter!(
        DB_BLOCK_READS,
        "Blocks of table files that were not in the cache when they were needed"
    );
    describe_counter!(
        DB_CACHE_HITS,
        "Blocks of table files that were in the cache when they were needed"
    );
    describe_counter!(
        DB_ERRORS,
        "Reads and writes of the index that failed, by kind: damaged (a checksum), io (the system refused), row (a row that cannot be), other"
    );
    for kind in DB_ERROR_KINDS {
        counter!(DB_ERRORS, "kind" => kind).increment(0);
    }
    gauge!(DAMAGED_BLOCKS).set(0.0);
    // There from the first scrape on, also on a node that never loads in bulk.
    bulk(false);
    merging(false);
    seconds_left(0.0);
    for counter in [
        counter!(BLOCKS),
        counter!(TRANSACTIONS),
        counter!(ROWS_WRITTEN),
        counter!(ROLLBACKS),
        counter!(STALE_POSITIONS),
        counter!(POSITIONS_RENEWED),
    ] {
        counter.increment(0);
    }
}

#[allow(clippy::cast_precision_loss, reason = "metrics are floats")]
fn float(value: u64) -> f64 {
    value as f64
}

/// The index stands at this height.
pub(crate) fn tip(height: Height) {
    gauge!(TIP_HEIGHT).set(f64::from(height));
}

/// A group of blocks was written.
pub(crate) fn committed(blocks: u64, rows: u64, elapsed: Duration) {
    histogram!(COMMIT_SECONDS).record(elapsed.as_secs_f64());
    counter!(BLOCKS).increment(blocks);
    counter!(ROWS_WRITTEN).increment(rows);
}

/// Transactions of a block were indexed.
pub(crate) fn transactions(count: u64) {
    counter!(TRANSACTIONS).increment(count);
}

/// Blocks below this height have a filter.
pub(crate) fn filters(next: Height) {
    gauge!(FILTERS).set(f64::from(next));
}

/// A block was taken back.
pub(crate) fn rolled_back() {
    counter!(ROLLBACKS).increment(1);
}

/// A read found other bytes than recorded.
pub(crate) fn stale_position() {
    counter!(STALE_POSITIONS).increment(1);
}

/// So many blocks are damaged in the block files.
pub(crate) fn damaged_blocks(count: usize) {
    gauge!(DAMAGED_BLOCKS).set(float(count as u64));
}

/// A read or write of the index failed. `kind` is one of [`DB_ERROR_KINDS`].
pub(crate) fn store_error(kind: &'static str) {
    counter!(DB_ERRORS, "kind" => kind).increment(1);
}

/// A position was recorded anew.
pub(crate) fn position_renewed() {
    counter!(POSITIONS_RENEWED).increment(1);
}

/// Sizes of one column family.
pub(crate) fn family(name: &'static str, stats: &FamilyStats) {
    gauge!(DB_FILE_BYTES, "family" => name).set(float(stats.file_bytes));
    gauge!(DB_MEMORY_BYTES, "family" => name).set(float(stats.memory_bytes));
    gauge!(DB_ROWS, "family" => name).set(float(stats.rows));
}

/// Blocks of table files that were read from the files and from the cache, since the
/// start.
pub(crate) fn blocks_read(from_files: u64, from_cache: u64) {
    counter!(DB_BLOCK_READS).absolute(from_files);
    counter!(DB_CACHE_HITS).absolute(from_cache);
}

/// Bytes of the block cache in use.
pub(crate) fn cache(bytes: u64) {
    gauge!(DB_CACHE_BYTES).set(float(bytes));
}

/// So many blocks are still to be indexed.
pub(crate) fn lag(blocks: Height) {
    gauge!(LAG_BLOCKS).set(f64::from(blocks));
}

/// They will take so long.
pub(crate) fn seconds_left(seconds: f64) {
    gauge!(SECONDS_LEFT).set(seconds);
}

/// A bulk load began or ended.
pub(crate) fn bulk(on: bool) {
    gauge!(BULK).set(f64::from(u8::from(on)));
}

/// Merging after a bulk load began or ended.
pub(crate) fn merging(on: bool) {
    gauge!(MERGING).set(f64::from(u8::from(on)));
}

/// Bytes that the database has written.
pub(crate) fn written(bytes: &WrittenBytes) {
    counter!(DB_LOGGED_BYTES).absolute(bytes.logged);
    counter!(DB_FLUSHED_BYTES).absolute(bytes.flushed);
    counter!(DB_COMPACTED_BYTES).absolute(bytes.compacted);
}

/// A duration for a log line.
pub(crate) fn millis(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
