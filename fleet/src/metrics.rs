//! The numbers of this crate. No other file spells their names.

use metrics::{counter, describe_counter, describe_gauge, gauge};
use pulse_primitives::Height;

const SIBLINGS: &str = "pulse_fleet_siblings";
const LINKS: &str = "pulse_fleet_links";
const REFUSED: &str = "pulse_fleet_refused_total";
const STATUSES: &str = "pulse_fleet_statuses_total";
const PUNISHED: &str = "pulse_fleet_punished_total";
const BEST_HEIGHT: &str = "pulse_fleet_best_height";

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
