//! The span of a request, for an OTLP endpoint; named as OpenTelemetry names them.
//!
//! # Security
//! As in the log, nothing in it is what a client wrote: no address, no path, no query. What a
//! client says about traces of its own is not looked at.

use axum::http::StatusCode;
use pulse_primitives::trace::TRACE_TARGET;
use tracing::{Span, field::Empty, trace_span};

/// A request begins. `method` is one of a fixed set.
pub(crate) fn request(method: &'static str) -> Span {
    trace_span!(
        target: TRACE_TARGET,
        "request",
        // The route is known only later, when a span can no longer be given a name.
        otel.name = method,
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = Empty,
        http.response.status_code = Empty,
    )
}

/// Its answer begins. `route` is a template, never a path.
pub(crate) fn answered(span: &Span, route: &'static str, status: StatusCode) {
    if span.is_disabled() {
        return;
    }
    span.record("http.route", route);
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}
