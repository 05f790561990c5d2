//! The numbers of this crate. No other file spells their names.

use metrics::{counter, describe_counter, describe_gauge, gauge};
use pulse_primitives::Height;

const SIBLINGS: &str = "pulse_fleet_siblings";
const LINKS: &str = "pulse_fleet_links";
const REFUSED: &str = "pulse_fleet_refused_total";
const STATUSES: &str = "pulse_fleet_statuses_total";
const PUNISHED: &str = "pulse_fleet_punished_total";
const BEST_HEIGHT: &str = "pulse_fleet_best_height";
const SNAPSHOT_BYTES: &str = "pulse_fleet_snapshot_bytes_total";
const SNAPSHOT_LEFT: &str = "pulse_fleet_snapshot_left_bytes";

/// Says what the numbers mean.
pub fn describe() {
    describe_gauge!(SIBLINGS, "Nodes of the fleet that are connected");
    describe_gauge!(
        LINKS,
        "Siblings with which blocks and transactions are exchanged"
    );
    describe_counter!(
        REFUSED,
        "Connections to the fleet's port that were refused, by reason"
    );
    describe_counter!(STATUSES, "Status messages of siblings, by verdict");
    describe_counter!(PUNISHED, "Siblings cut off for misbehaviour");
    describe_gauge!(
        BEST_HEIGHT,
        "Height of the best tip of a sibling whose header this node has checked"
    );
    describe_counter!(
        SNAPSHOT_BYTES,
        "Bytes of chunks of snapshots, by direction: sent to siblings, received from them"
    );
    describe_gauge!(
        SNAPSHOT_LEFT,
        "Bytes of a sibling's snapshot that are still to be fetched"
    );
}

/// A fleet begins: from now on there are numbers, also before anything happens.
pub(crate) fn begin() {
    siblings(0, 0);
    counter!(PUNISHED).increment(0);
}

#[allow(clippy::cast_precision_loss, reason = "there are few siblings")]
pub(crate) fn siblings(count: usize, links: usize) {
    gauge!(SIBLINGS).set(count as f64);
    gauge!(LINKS).set(links as f64);
}

pub(crate) fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

pub(crate) fn status(verdict: &'static str) {
    counter!(STATUSES, "verdict" => verdict).increment(1);
}

pub(crate) fn punished() {
    counter!(PUNISHED).increment(1);
}

pub(crate) fn best_height(height: Height) {
    gauge!(BEST_HEIGHT).set(height);
}

pub(crate) fn snapshot_sent(bytes: u32) {
    counter!(SNAPSHOT_BYTES, "direction" => "sent").increment(u64::from(bytes));
}

pub(crate) fn snapshot_received(bytes: u64) {
    counter!(SNAPSHOT_BYTES, "direction" => "received").increment(bytes);
}

/// Says how much of a snapshot is still to be fetched.
#[allow(clippy::cast_precision_loss, reason = "bytes on a disk are below 2^52")]
pub fn snapshot_left(bytes: u64) {
    gauge!(SNAPSHOT_LEFT).set(bytes as f64);
}
