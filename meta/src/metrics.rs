//! Names of the metrics of this crate.

use metrics::{counter, describe_counter};

const RECOVERIES: &str = "pulse_meta_recoveries_total";

/// Registers the help texts and starts every counter at zero, so that a scrape
/// shows it before its first event.
pub fn describe() {
    describe_counter!(
        RECOVERIES,
        "Times a damaged metadata database was moved aside and replaced."
    );
    counter!(RECOVERIES).increment(0);
}

pub(crate) fn count_recovery() {
    counter!(RECOVERIES).increment(1);
}
