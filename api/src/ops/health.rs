//! Whether the process answers, and whether its answers are complete.

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use pulse_primitives::status::Readiness;

use super::{answer, json};
use crate::state::ApiState;

/// `/health/live`: 200 as long as the process answers at all.
pub(crate) async fn live() -> Response {
    answer("/health/live", StatusCode::OK, "text/plain", b"ok".to_vec())
}

/// `/health`: 200 when synced, else 503 with the reason.
pub(super) async fn synced(State(state): State<ApiState>) -> Response {
    let index_tip = *state.query().tip_watch().borrow();
    let readiness = state.status().report().readiness(index_tip);
    match readiness {
        Readiness::Synced => json("/health", StatusCode::OK, &readiness),
        Readiness::NotSynced { .. } => (
            [(header::RETRY_AFTER, HeaderValue::from_static("10"))],
            json("/health", StatusCode::SERVICE_UNAVAILABLE, &readiness),
        )
            .into_response(),
    }
}
