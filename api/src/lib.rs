//! From an answer to bytes for a client: the Esplora REST API, health, statistics and
//! metrics over HTTP.
//!
//! ```text
//! listener -> server -> layers -> rest or ops -> blocking -> query -> JSON
//! ```
//!
//! Async ends in `blocking`: everything behind it is synchronous and reads one
//! snapshot of the index per request, with the mempool of the same block where an answer
//! has an unconfirmed part. The crate knows the node only through
//! [`pulse_primitives::ports::NodeStatus`] and the ports of
//! [`pulse_primitives::mempool`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accept;
mod access;
mod access_log;
mod at_height;
mod blocking;
mod blocks;
mod compress;
mod config;
pub mod electrum;
mod fallback;
mod layers;
mod metrics;
mod opening;
mod ops;
mod places;
pub mod push;
mod registry;
mod rest;
mod server;
mod state;
mod tls;
mod together;
mod trace;

pub use crate::access::{AccessConfig, KeyUse};
pub use crate::config::{ApiConfig, BroadcastErrors, CorsOrigin, ScriptTypes};
pub use crate::fallback::{Fallback, FallbackError, FallbackUrl};
pub use crate::metrics::{SECONDS_BUCKETS, describe as describe_metrics, trust as record_trust};
pub use crate::opening::{Door, Opening};
pub use crate::ops::sampler::run as run_sampler;
pub use crate::server::{HttpsAcceptor, ServerLimits, serve};
pub use crate::state::{ApiState, MempoolPorts};
pub use crate::tls::{Certificates, TlsError};

use std::sync::Arc;

use axum::{Router, middleware::from_fn_with_state};
use pulse_primitives::{api_keys::ApiKeyStore, labels::LabelStore, peers::PeerControl};

/// What the operator writes into the node.
#[derive(Clone)]
pub struct OperatorBooks {
    /// Names for addresses and other things.
    pub labels: Arc<dyn LabelStore>,
    /// Keys of clients.
    pub api_keys: Arc<dyn ApiKeyStore>,
}

/// Everything of the public listener: the Esplora API at `/` and under `/api`,
/// `/health`, `/health/live`, `/stats`, and `/metrics` unless the operator has given
/// it a listener of its own ([`ApiConfig::ops_addr`]). With `push` also `/ws` and
/// `/events`.
pub fn main_router(state: ApiState, push: Option<push::PushState>) -> Router {
    let mut router = ops::health_routes();
    if state.config().ops_addr.is_none() {
        router = router.merge(ops::metrics_route());
    }
    router = router.merge(rest::openapi::routes());
    let (cors, limits) = (state.config().cors.clone(), state.config().into());
    let (access, log) = (state.access(), state.config().access_log);
    let router = router.fallback(rest::handle);
    let router = router.layer(from_fn_with_state(state.clone(), at_height::layer));
    let mut router = router.with_state(state);
    if let Some(push) = push {
        router = router.merge(push::routes(push));
    }
    layers::wrap_for(router, cors, limits, access, log)
}

/// Everything of the operator's listener: `/metrics`, `/health`, `/health/live`,
/// `/stats`, the peers that `control` reaches, labels and API keys, and `/openapi.json` about
/// them. Sends no CORS header, so that web
/// pages cannot read it.
pub fn ops_router(state: ApiState, control: Arc<dyn PeerControl>, books: OperatorBooks) -> Router {
    let (limits, log) = (state.config().into(), state.config().access_log);
    let router = ops::health_routes()
        .merge(ops::metrics_route())
        .merge(rest::openapi::operator_routes());
    let router = router.fallback(rest::handle_operator).with_state(state);
    let router = router.merge(ops::peer_routes(control));
    let router = router.merge(ops::label_routes(books.labels));
    let router = router.merge(ops::key_routes(books.api_keys));
    let access = Arc::new(access::Access::open());
    layers::wrap_for(router, CorsOrigin::none(), limits, access, log)
}
