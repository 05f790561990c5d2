//! Every metric of this crate: its name, its meaning, and how it is recorded.

use metrics::{Unit, counter, describe_counter};

const RECEIVED_BYTES: &str = "pulse_p2p_received_bytes_total";
const SENT_BYTES: &str = "pulse_p2p_sent_bytes_total";

/// Registers the HELP text of every metric. Call once, when the recorder is installed.
pub fn describe() {
    describe_counter!(
        RECEIVED_BYTES,
        Unit::Bytes,
        "Bytes received from Bitcoin peers"
    );
    describe_counter!(SENT_BYTES, Unit::Bytes, "Bytes sent to Bitcoin peers");
    // There from the first scrape on.
    received_bytes(0);
    sent_bytes(0);
}

/// Counts bytes that came from a peer.
pub fn received_bytes(count: u64) {
    counter!(RECEIVED_BYTES).increment(count);
}

/// Counts bytes that went to a peer.
pub fn sent_bytes(count: u64) {
    counter!(SENT_BYTES).increment(count);
}
