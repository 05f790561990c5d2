//! Every metric of this crate: its name, its meaning, and how it is recorded.

use std::time::Duration;

use metrics::{
    Counter, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

const P2P_PEERS: &str = "pulse_p2p_peers";
const P2P_DISCONNECTS: &str = "pulse_p2p_disconnects_total";
const P2P_INBOUND_PEERS: &str = "pulse_p2p_inbound_peers";
const P2P_BLOCKS_SERVED: &str = "pulse_p2p_blocks_served_total";
const BLOCKFILE_READS: &str = "pulse_blockfile_reads_total";
const BLOCKFILE_READ_BYTES: &str = "pulse_blockfile_read_bytes_total";
const CHAIN_TIP_HEIGHT: &str = "pulse_chain_tip_height";
const CHAIN_TIP_TIME: &str = "pulse_chain_tip_timestamp_seconds";
const CHAIN_REORG_DEPTH: &str = "pulse_chain_reorg_depth_blocks";
const SYNC_HEADERS_HEIGHT: &str = "pulse_sync_headers_height";
const SYNC_PRESYNCS: &str = "pulse_sync_presyncs";
const SYNC_COMPACT_BLOCKS: &str = "pulse_sync_compact_blocks_total";
const SYNC_IN_FLIGHT: &str = "pulse_sync_blocks_in_flight";
const SYNC_BUFFERED_BYTES: &str = "pulse_sync_buffered_bytes";
const SYNC_BLOCKS: &str = "pulse_sync_blocks_total";
const SYNC_TXS: &str = "pulse_sync_transactions_total";
const SYNC_SUBMIT_SECONDS: &str = "pulse_sync_submit_seconds";

const RELAY_ANNOUNCEMENTS: &str = "pulse_relay_announcements";
const RELAY_ORPHANS: &str = "pulse_relay_orphans";
const RELAY_WAITING: &str = "pulse_relay_waiting";
const RELAY_RECEIVED: &str = "pulse_relay_received_total";
const RELAY_JUDGED: &str = "pulse_relay_judged_total";
const RELAY_ANNOUNCED: &str = "pulse_relay_announced_total";

/// Registers the HELP text of every metric. Call once, when the recorder is installed.
pub fn describe() {
    pulse_p2p::metrics::describe();
    pulse_mempool::metrics::describe();
    describe_relay();
    describe_gauge!(P2P_PEERS, Unit::Count, "Peers with a finished handshake");
    describe_counter!(
        P2P_DISCONNECTS,
        Unit::Count,
        "Connections to Bitcoin peers that ended or failed, by reason"
    );
    describe_gauge!(
        P2P_INBOUND_PEERS,
        Unit::Count,
        "Peers that connected to the node, with a finished handshake"
    );
    describe_counter!(P2P_BLOCKS_SERVED, Unit::Count, "Blocks sent to peers");
    describe_counter!(
        BLOCKFILE_READS,
        Unit::Count,
        "Reads of the kernel's block and undo files, by queries and by the index"
    );
    describe_counter!(BLOCKFILE_READ_BYTES, Unit::Bytes, "Bytes of them");
    describe_gauge!(
        CHAIN_TIP_HEIGHT,
        Unit::Count,
        "Height of the active chain: the newest block that the kernel has connected"
    );
    describe_gauge!(
        CHAIN_TIP_TIME,
        Unit::Seconds,
        "Time in the header of that block, since 1970"
    );
    describe_histogram!(
        CHAIN_REORG_DEPTH,
        Unit::Count,
        "Blocks that a reorganisation took out of the active chain"
    );
    describe_gauge!(
        SYNC_HEADERS_HEIGHT,
        Unit::Count,
        "Height of the best valid header chain"
    );
    describe_gauge!(
        SYNC_PRESYNCS,
        Unit::Count,
        "Peers whose header chains have yet to show enough work"
    );
    describe_counter!(
        SYNC_COMPACT_BLOCKS,
        Unit::Count,
        "Compact blocks from peers, by what could be made of them"
    );
    describe_gauge!(
        SYNC_IN_FLIGHT,
        Unit::Count,
        "Blocks requested from peers and not yet received"
    );
    describe_gauge!(
        SYNC_BUFFERED_BYTES,
        Unit::Bytes,
        "Blocks received and not yet judged by the kernel"
    );
    describe_counter!(
        SYNC_BLOCKS,
        Unit::Count,
        "Blocks from peers, by what the kernel said of them"
    );
    describe_counter!(
        SYNC_TXS,
        Unit::Count,
        "Transactions in blocks from peers that the kernel accepted"
    );
    describe_histogram!(
        SYNC_SUBMIT_SECONDS,
        Unit::Seconds,
        "Time from handing a block to the kernel to its answer"
    );
    // There from the first scrape on: `rate` does not see how something begins.
    for counter in [
        counter!(P2P_BLOCKS_SERVED),
        counter!(SYNC_TXS),
        counter!(RELAY_RECEIVED),
        counter!(RELAY_ANNOUNCED),
    ] {
        counter.increment(0);
    }
}

/// The active chain ends here, with a header of that time.
pub(crate) fn chain_tip(height: u32, time: u32) {
    gauge!(CHAIN_TIP_HEIGHT).set(f64::from(height));
    gauge!(CHAIN_TIP_TIME).set(f64::from(time));
}

/// So many blocks left the active chain at once.
pub(crate) fn reorganised(depth: usize) {
    histogram!(CHAIN_REORG_DEPTH).record(depth as f64);
}

/// `inbound` of the `count` peers connected to us.
pub(crate) fn peers(count: usize, inbound: usize) {
    gauge!(P2P_PEERS).set(count as f64);
    gauge!(P2P_INBOUND_PEERS).set(inbound as f64);
}

/// `reason` is one of a fixed set of words.
pub(crate) fn disconnect(reason: &'static str) {
    counter!(P2P_DISCONNECTS, "reason" => reason).increment(1);
}

pub(crate) fn block_served() {
    counter!(P2P_BLOCKS_SERVED).increment(1);
}

pub(crate) fn headers_height(height: u32) {
    gauge!(SYNC_HEADERS_HEIGHT).set(f64::from(height));
}

pub(crate) fn presyncs(count: usize) {
    gauge!(SYNC_PRESYNCS).set(count as f64);
}

/// `outcome` is `whole` (all transactions at hand), `missing` (some were asked for) or
/// `failed`.
pub(crate) fn compact_block(outcome: &'static str) {
    counter!(SYNC_COMPACT_BLOCKS, "outcome" => outcome).increment(1);
}

pub(crate) fn window(in_flight: usize, buffered_bytes: usize) {
    gauge!(SYNC_IN_FLIGHT).set(in_flight as f64);
    gauge!(SYNC_BUFFERED_BYTES).set(buffered_bytes as f64);
}

/// `verdict` is `accepted`, `duplicate`, `mutated` or `invalid`.
pub(crate) fn block_judged(verdict: &'static str, txs: u64, elapsed: Duration) {
    counter!(SYNC_BLOCKS, "verdict" => verdict).increment(1);
    counter!(SYNC_TXS).increment(txs);
    histogram!(SYNC_SUBMIT_SECONDS).record(elapsed.as_secs_f64());
}

fn describe_relay() {
    describe_gauge!(
        RELAY_ANNOUNCEMENTS,
        Unit::Count,
        "Transactions that peers announced and that are not here yet, once per peer"
    );
    describe_gauge!(
        RELAY_ORPHANS,
        Unit::Count,
        "Transactions that wait for an unknown parent"
    );
    describe_gauge!(
        RELAY_WAITING,
        Unit::Count,
        "Transactions from peers that wait to be judged"
    );
    describe_counter!(
        RELAY_RECEIVED,
        Unit::Count,
        "Transactions received from peers"
    );
    describe_counter!(
        RELAY_JUDGED,
        Unit::Count,
        "Transactions from peers by what became of them"
    );
    describe_counter!(
        RELAY_ANNOUNCED,
        Unit::Count,
        "Announcements of transactions to peers"
    );
}

pub(crate) fn relay(announcements: usize, orphans: usize, waiting: usize) {
    gauge!(RELAY_ANNOUNCEMENTS).set(announcements as f64);
    gauge!(RELAY_ORPHANS).set(orphans as f64);
    gauge!(RELAY_WAITING).set(waiting as f64);
}

pub(crate) fn relay_received() {
    counter!(RELAY_RECEIVED).increment(1);
}

/// `verdict` is `accepted`, `rejected`, `orphan`, `dropped` or `not_judged`.
pub(crate) fn relay_judged(verdict: &'static str) {
    counter!(RELAY_JUDGED, "verdict" => verdict).increment(1);
}

pub(crate) fn relay_announced(count: usize) {
    counter!(RELAY_ANNOUNCED).increment(count as u64);
}

/// Counts reads of block files; looked up once, because there are many.
pub(crate) struct BlockfileReads {
    reads: Counter,
    bytes: Counter,
}

impl BlockfileReads {
    /// To be made after the recorder is installed.
    pub(crate) fn new() -> Self {
        Self {
            reads: counter!(BLOCKFILE_READS),
            bytes: counter!(BLOCKFILE_READ_BYTES),
        }
    }

    /// `len` bytes were read.
    pub(crate) fn read(&self, len: usize) {
        self.reads.increment(1);
        self.bytes.increment(len as u64);
    }
}
