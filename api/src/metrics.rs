//! The metrics of this crate. No other file here spells their names.

use std::time::Duration;

use axum::http::StatusCode;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

const REQUEST_SECONDS: &str = "pulse_rest_request_seconds";
const IN_FLIGHT: &str = "pulse_rest_requests_in_flight";
const CONNECTIONS: &str = "pulse_rest_connections";
const REFUSED: &str = "pulse_rest_queries_refused_total";
const PANICS: &str = "pulse_rest_handler_panics_total";

/// Upper bounds for histograms of request times, in seconds.
pub const SECONDS_BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0,
];

/// Registers the HELP text of every metric of this crate. To be called once, after the
/// recorder is installed.
pub fn describe() {
    describe_histogram!(
        REQUEST_SECONDS,
        Unit::Seconds,
        "Time from a request's headers to its answer, by route template and status"
    );
    describe_gauge!(IN_FLIGHT, "Requests that are being answered");
    describe_gauge!(CONNECTIONS, "Open HTTP connections");
    describe_counter!(
        REFUSED,
        "Requests answered with 503 because no query slot became free in time"
    );
    describe_counter!(PANICS, "Requests whose handler panicked");
}

/// Records an answered request. `route` is a template, never a path.
pub(crate) fn request(route: &'static str, status: StatusCode, elapsed: Duration) {
    metrics::histogram!(REQUEST_SECONDS, "route" => route, "status" => status.as_str().to_owned())
        .record(elapsed);
}

pub(crate) fn query_refused() {
    counter!(REFUSED).increment(1);
}

pub(crate) fn handler_panicked() {
    counter!(PANICS).increment(1);
}

/// Counts something that is open, from its creation until it is dropped.
pub(crate) struct Open(&'static str);

impl Open {
    pub(crate) fn request() -> Self {
        Self::enter(IN_FLIGHT)
    }

    pub(crate) fn connection() -> Self {
        Self::enter(CONNECTIONS)
    }

    fn enter(name: &'static str) -> Self {
        gauge!(name).increment(1);
        Self(name)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        gauge!(self.0).decrement(1);
    }
}
