//! Answers for operators and their monitors: `/health`, `/health/live`, `/stats` and
//! `/metrics`; and what operators do to peers, labels and API keys. Nothing here may be cached.

mod describe;
mod health;
mod keys;
mod labels;
mod peers;
pub(crate) mod sampler;
mod stats;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Extension, IntoResponse, Response},
    routing::{MethodRouter, get},
};
use metrics_exporter_prometheus::PrometheusHandle;
use pulse_primitives::{fleet::FleetStatus, status::Readiness};
use serde::Serialize;
use tracing::warn;

pub(crate) use describe::{describe, describe_operator};
pub(crate) use health::{live, readiness};
pub(crate) use keys::routes as key_routes;
pub(crate) use labels::routes as label_routes;
pub(crate) use peers::routes as peer_routes;

use crate::{layers::RouteTemplate, metrics, rest, state::ApiState};

/// Content type of `/metrics`.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `/health`, `/health/live` and `/stats`.
pub(crate) fn health_routes() -> Router<ApiState> {
    Router::new()
        .route("/health", only_get(get(health::synced)))
        .route("/health/live", only_get(get(health::live)))
        .route("/stats", only_get(get(stats::stats)))
}

/// `/metrics`.
pub(crate) fn metrics_route() -> Router<ApiState> {
    Router::new().route("/metrics", only_get(get(recorded)))
}

/// Any other method does not exist, as in the rest of the API.
fn only_get(route: MethodRouter<ApiState>) -> MethodRouter<ApiState> {
    route.fallback(rest::no_endpoint)
}

/// What the process has recorded, in the text format of Prometheus.
async fn recorded(State(state): State<ApiState>) -> Response {
    let best = state.status().report_without_peers().best_header.height;
    if let Err(err) = state.query().record_metrics(best) {
        warn!(
            err = &err as &dyn std::error::Error,
            "sizes of the index not read"
        );
    }
    // Brings the fleet's best height up to date, also while this node is not synced.
    let _ = state.fleet().map(FleetStatus::report);
    metrics::trust(state.trust());
    metrics::ready(readiness(&state) == Readiness::Synced);
    rendered(state.prometheus())
}

/// The answer to `/metrics`.
pub(crate) fn rendered(prometheus: &PrometheusHandle) -> Response {
    answer(
        "/metrics",
        StatusCode::OK,
        METRICS_TYPE,
        prometheus.render().into_bytes(),
    )
}

/// The answer to `/health`.
pub(crate) fn health_answer(status: StatusCode, readiness: &Readiness) -> Response {
    json("/health", status, readiness)
}

/// Refuses requests that a web page has sent.
fn refuse_pages(route: &'static str, headers: &HeaderMap) -> Option<Response> {
    headers
        .contains_key(header::ORIGIN)
        .then(|| text(route, StatusCode::FORBIDDEN, "not for web pages"))
}

fn text(route: &'static str, status: StatusCode, text: &str) -> Response {
    let mut response = answer(route, status, "text/plain", text.as_bytes().to_vec());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let seconds = HeaderValue::from_static("10");
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

fn json(route: &'static str, status: StatusCode, value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("the models have string keys and no I/O");
    answer(route, status, "application/json", body)
}

fn answer(
    route: &'static str,
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    let template = Extension(RouteTemplate(route));
    (status, template, headers, Body::from(body)).into_response()
}
