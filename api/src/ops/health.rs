//! Whether the process answers, and whether its answers are complete.

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use pulse_primitives::{fleet::FleetStatus, status::Readiness};

use super::{answer, json};
use crate::state::ApiState;

/// `/health/live`: 200 as long as the process answers at all.
pub(crate) async fn live() -> Response {
    answer("/health/live", StatusCode::OK, "text/plain", b"ok".to_vec())
}

/// Whether answers are complete now.
pub(crate) fn readiness(state: &ApiState) -> Readiness {
    if state.is_draining() {
        let reason = "the node is about to stop".to_owned();
        return Readiness::NotSynced { reason };
    }
    let own = match state.query().view() {
        Ok(view) => state.readiness(&view),
        Err(err) => Readiness::NotSynced {
            reason: format!("the index cannot be read: {err}"),
        },
    };
    match (own, state.fleet()) {
        (Readiness::Synced, Some(fleet)) => beside(state, fleet),
        (own, _) => own,
    }
}

/// Whether a node that is ready by itself is so beside its siblings. Only a tip counts whose
/// header this node holds and has checked.
fn beside(state: &ApiState, fleet: &dyn FleetStatus) -> Readiness {
    let indexed = (*state.query().tip_watch().borrow()).map_or(0, |tip| tip.height);
    let best = fleet.report().best_height.unwrap_or(0);
    let lag = best.saturating_sub(indexed);
    if lag <= fleet.max_lag_blocks() {
        return Readiness::Synced;
    }
    Readiness::NotSynced {
        reason: format!("{lag} blocks behind the fleet's best tip {best}"),
    }
}

/// `/health`: 200 when synced, else 503 with the reason.
pub(super) async fn synced(State(state): State<ApiState>) -> Response {
    let readiness = readiness(&state);
    match readiness {
        Readiness::Synced => json("/health", StatusCode::OK, &readiness),
        Readiness::NotSynced { .. } => (
            [(header::RETRY_AFTER, HeaderValue::from_static("10"))],
            json("/health", StatusCode::SERVICE_UNAVAILABLE, &readiness),
        )
            .into_response(),
    }
}
