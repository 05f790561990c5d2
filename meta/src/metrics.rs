//! Names of the metrics of this crate.

use metrics::{counter, describe_counter};

const LOST_VALUES: &str = "pulse_meta_lost_values_total";
const RECOVERIES: &str = "pulse_meta_recoveries_total";

/// Registers the help texts and starts every counter at zero, so that a scrape
/// shows it before its first event.
pub fn describe() {
    describe_counter!(
        LOST_VALUES,
        "Times saved addresses, bans, anchors or fee history were damaged and forgotten."
    );
    counter!(LOST_VALUES).increment(0);
    describe_counter!(
        RECOVERIES,
        "Times a damaged metadata database was moved aside and replaced."
    );
    counter!(RECOVERIES).increment(0);
}

pub(crate) fn count_recovery() {
    counter!(RECOVERIES).increment(1);
}

pub(crate) fn count_lost_value() {
    counter!(LOST_VALUES).increment(1);
}
