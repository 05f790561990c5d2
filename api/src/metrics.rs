//! The metrics of this crate. No other file here spells their names.

use std::{collections::HashMap, sync::LazyLock, time::Duration};

use axum::http::StatusCode;
use metrics::{
    Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
};
use parking_lot::RwLock;
use pulse_primitives::status::{Trust, TrustReport};

const READY: &str = "pulse_ready";
const TRUST: &str = "pulse_chain_trust";
const REPLAYED: &str = "pulse_chain_replayed_blocks";
const REQUEST_SECONDS: &str = "pulse_rest_request_seconds";
const IN_FLIGHT: &str = "pulse_rest_requests_in_flight";
const CONNECTIONS: &str = "pulse_rest_connections";
const REFUSED: &str = "pulse_rest_queries_refused_total";
const CONNECTIONS_REFUSED: &str = "pulse_rest_connections_refused_total";
const KNOWN_BEFORE: &str = "pulse_rest_known_before_total";
const PANICS: &str = "pulse_rest_handler_panics_total";
const FALLBACK: &str = "pulse_rest_fallback_total";
const KEY_REQUESTS: &str = "pulse_rest_api_key_requests_total";
const ACCESS_REFUSED: &str = "pulse_rest_requests_refused_total";
const ELECTRUM_SECONDS: &str = "pulse_electrum_request_seconds";
const ELECTRUM_CONNECTIONS: &str = "pulse_electrum_connections";
const ELECTRUM_SUBSCRIPTIONS: &str = "pulse_electrum_subscriptions";
const ELECTRUM_NOTIFICATIONS: &str = "pulse_electrum_notifications_total";
const ELECTRUM_REFUSED: &str = "pulse_electrum_refused_total";
const ELECTRUM_ROUND: &str = "pulse_electrum_round_seconds";
const PUSH_CONNECTIONS: &str = "pulse_push_connections";
const PUSH_SUBSCRIPTIONS: &str = "pulse_push_subscriptions";
const PUSH_MESSAGES: &str = "pulse_push_messages_total";
const PUSH_REFUSED: &str = "pulse_push_refused_total";
const PUSH_CLOSED: &str = "pulse_push_closed_total";
const PUSH_ROUND: &str = "pulse_push_round_seconds";
const CERTIFICATE_EXPIRES: &str = "pulse_tls_certificate_expires_timestamp_seconds";

/// Upper bounds for histograms of request times, in seconds.
pub const SECONDS_BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0,
];

/// Registers the HELP text of every metric of this crate. To be called once, after the
/// recorder is installed.
pub fn describe() {
    describe_gauge!(READY, "1 when /health answers 200, else 0");
    ready(false);
    describe_gauge!(
        TRUST,
        "1 for whose word the state of the chain is: that of a sibling, or validated here"
    );
    describe_gauge!(
        REPLAYED,
        "Blocks below a sibling's snapshot that were computed anew"
    );
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
    describe_counter!(
        CONNECTIONS_REFUSED,
        "Requests refused and connections closed because of too many connections, of the listener or of an address"
    );
    describe_counter!(KEY_REQUESTS, "Requests with an API key, by its id");
    describe_counter!(
        ACCESS_REFUSED,
        "Requests refused for lack of a key or for being too many, by reason"
    );
    describe_counter!(
        KNOWN_BEFORE,
        "Requests answered with 304 without a query for the answer"
    );
    describe_counter!(PANICS, "Requests whose handler panicked");
    describe_counter!(
        FALLBACK,
        "Requests that another Esplora server was to answer, by what came of it"
    );
    describe_histogram!(
        ELECTRUM_SECONDS,
        Unit::Seconds,
        "Time from an Electrum request to its result, by method and whether it has one"
    );
    describe_gauge!(ELECTRUM_CONNECTIONS, "Open Electrum connections");
    describe_gauge!(
        ELECTRUM_SUBSCRIPTIONS,
        "Scripts that Electrum clients subscribe to"
    );
    describe_counter!(ELECTRUM_NOTIFICATIONS, "Notifications to Electrum clients");
    describe_counter!(
        ELECTRUM_REFUSED,
        "Electrum requests and connections refused because of a limit"
    );
    describe_histogram!(
        ELECTRUM_ROUND,
        Unit::Seconds,
        "Time to renew the statuses of all subscribed scripts that a change has touched"
    );
    describe_gauge!(
        PUSH_CONNECTIONS,
        "Open WebSocket and Server-Sent Events connections"
    );
    describe_gauge!(
        PUSH_SUBSCRIPTIONS,
        "Scripts, outpoints and transactions that push clients subscribe to"
    );
    describe_counter!(PUSH_MESSAGES, "Events and states sent to push clients");
    describe_counter!(
        PUSH_REFUSED,
        "Push connections and requests refused because of a limit or a mistake"
    );
    describe_counter!(PUSH_CLOSED, "Push connections that have ended, by reason");
    describe_histogram!(
        PUSH_ROUND,
        Unit::Seconds,
        "Time to renew the states of all subscriptions that a change has touched"
    );
    describe_gauge!(
        CERTIFICATE_EXPIRES,
        "When the certificate in use becomes invalid, in seconds since 1970, by listener"
    );
    // There from the first scrape on: `rate` does not see how something begins.
    for counter in [
        counter!(REFUSED),
        counter!(CONNECTIONS_REFUSED, "limit" => "listener"),
        counter!(CONNECTIONS_REFUSED, "limit" => "address"),
        counter!(PANICS),
        counter!(ELECTRUM_NOTIFICATIONS),
        counter!(PUSH_MESSAGES),
        counter!(KNOWN_BEFORE),
    ] {
        counter.increment(0);
    }
    for gauge in [
        gauge!(IN_FLIGHT),
        gauge!(CONNECTIONS),
        gauge!(ELECTRUM_SUBSCRIPTIONS),
        gauge!(PUSH_SUBSCRIPTIONS),
    ] {
        gauge.increment(0.0);
    }
}

/// The certificate of a listener (`http` or `electrum`) is valid until then.
#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn certificate(listener: &'static str, expires: i64) {
    gauge!(CERTIFICATE_EXPIRES, "listener" => listener).set(expires as f64);
}

/// Records a request with a key. There are at most 1,000 ids at a time.
pub(crate) fn key_used(id: &str) {
    counter!(KEY_REQUESTS, "key" => id.to_owned()).increment(1);
}

/// Records a request that was refused before it was looked at.
pub(crate) fn access_refused(reason: &'static str) {
    counter!(ACCESS_REFUSED, "reason" => reason).increment(1);
}

/// Records whether answers are complete now.
pub(crate) fn ready(is_ready: bool) {
    gauge!(READY).set(f64::from(u8::from(is_ready)));
}

/// Records whose word the state of the chain is.
pub fn trust(report: TrustReport) {
    for (trust, word) in [
        (Trust::Sibling, "sibling"),
        (Trust::Validated, "validated"),
        (Trust::Refuted, "refuted"),
    ] {
        let is_it = u8::from(report.trust == trust);
        gauge!(TRUST, "trust" => word).set(f64::from(is_it));
    }
    if let Some((height, _)) = report.replayed {
        gauge!(REPLAYED).set(height);
    }
}

/// Histograms of requests by route and status: looking one up by its name costs more than
/// recording. There are as many as the recorder has.
static REQUESTS: LazyLock<RwLock<HashMap<(&'static str, StatusCode), Histogram>>> =
    LazyLock::new(RwLock::default);

/// Records an answered request. `route` is a template, never a path.
pub(crate) fn request(route: &'static str, status: StatusCode, elapsed: Duration) {
    if let Some(histogram) = REQUESTS.read().get(&(route, status)) {
        histogram.record(elapsed);
        return;
    }
    let label = status.as_str().to_owned();
    let histogram = metrics::histogram!(REQUEST_SECONDS, "route" => route, "status" => label);
    histogram.record(elapsed);
    REQUESTS.write().insert((route, status), histogram);
}

/// A request came on a connection beyond a limit: of the `listener`, or of an `address`.
pub(crate) fn connection_refused(limit: &'static str) {
    counter!(CONNECTIONS_REFUSED, "limit" => limit).increment(1);
}

pub(crate) fn query_refused() {
    counter!(REFUSED).increment(1);
}

/// Records a 304 that took no query.
pub(crate) fn known_before() {
    counter!(KNOWN_BEFORE).increment(1);
}

pub(crate) fn handler_panicked() {
    counter!(PANICS).increment(1);
}

/// Records a request that another server was to answer. `result` is a fixed word.
pub(crate) fn fallback(result: &'static str) {
    counter!(FALLBACK, "result" => result).increment(1);
}

/// Records an Electrum request. `method` is one of those that exist, or a fixed word.
pub(crate) fn electrum_request(method: &'static str, is_ok: bool, elapsed: Duration) {
    let status = if is_ok { "ok" } else { "error" };
    metrics::histogram!(ELECTRUM_SECONDS, "method" => method, "status" => status).record(elapsed);
}

/// Electrum subscriptions that began, or ended.
pub(crate) fn electrum_subscriptions(change: i32) {
    gauge!(ELECTRUM_SUBSCRIPTIONS).increment(f64::from(change));
}

pub(crate) fn electrum_notified() {
    counter!(ELECTRUM_NOTIFICATIONS).increment(1);
}

pub(crate) fn electrum_refused(limit: &'static str) {
    counter!(ELECTRUM_REFUSED, "limit" => limit).increment(1);
}

pub(crate) fn electrum_round(elapsed: Duration) {
    metrics::histogram!(ELECTRUM_ROUND).record(elapsed);
}

/// Push subscriptions that began, or ended.
pub(crate) fn push_subscriptions(count: usize, began: bool) {
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let count = count as f64;
    match began {
        true => gauge!(PUSH_SUBSCRIPTIONS).increment(count),
        false => gauge!(PUSH_SUBSCRIPTIONS).decrement(count),
    }
}

pub(crate) fn push_sent(count: usize) {
    counter!(PUSH_MESSAGES).increment(count as u64);
}

/// Something of a push client was refused; `reason` is one of a fixed set.
pub(crate) fn push_refused(reason: &'static str) {
    counter!(PUSH_REFUSED, "reason" => reason).increment(1);
}

pub(crate) fn push_closed(reason: &'static str) {
    counter!(PUSH_CLOSED, "reason" => reason).increment(1);
}

pub(crate) fn push_round(elapsed: Duration) {
    metrics::histogram!(PUSH_ROUND).record(elapsed);
}

/// Counts something that is open, from its creation until it is dropped.
pub(crate) struct Open(Gauge);

impl Open {
    pub(crate) fn request() -> Self {
        static REQUESTS: LazyLock<Gauge> = LazyLock::new(|| gauge!(IN_FLIGHT));
        Self::enter(REQUESTS.clone())
    }

    pub(crate) fn connection() -> Self {
        Self::enter(gauge!(CONNECTIONS))
    }

    pub(crate) fn electrum(transport: &'static str) -> Self {
        Self::enter(gauge!(ELECTRUM_CONNECTIONS, "transport" => transport))
    }

    pub(crate) fn push(transport: &'static str) -> Self {
        Self::enter(gauge!(PUSH_CONNECTIONS, "transport" => transport))
    }

    fn enter(gauge: Gauge) -> Self {
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}
