//! The Esplora REST API, at `/` and under `/api`.
//!
//! path -> [`router`] (which endpoint, with which parameters) -> [`snapshot`] (one view
//! of the index) -> the endpoint's function -> [`reply`] or [`error`]
//!
//! # Correctness
//! - Each answer is drawn from one snapshot of the index.
//! - Until the node is synced, what a later block could change is answered with 503,
//!   never with an empty list or a 404 ([`snapshot::Snapshot`]).

mod address;
mod block;
pub(crate) mod error;
mod model;
mod params;
mod reply;
mod router;
mod script;
mod snapshot;
mod tx;

use axum::{
    extract::State,
    http::{Method, Uri},
    response::{Extension, IntoResponse, Response},
};

use crate::{layers::RouteTemplate, state::ApiState};
use error::RestError;
use snapshot::Snapshot;

/// Answers every path that belongs to no other route.
pub(crate) async fn handle(State(state): State<ApiState>, method: Method, uri: Uri) -> Response {
    let found = match method {
        // The bodies of answers to HEAD are cut off by axum.
        Method::GET | Method::HEAD => router::find(uri.path(), state.params().network),
        _ => None,
    };
    let Some(found) = found else {
        return no_endpoint(uri).await.into_response();
    };
    let answer = match found.endpoint {
        Err(error) => Err(error),
        Ok(endpoint) => {
            let worker = state.clone();
            state
                .blocking()
                .run(move || endpoint.answer(&Snapshot::take(&worker)?))
                .await
                .unwrap_or_else(|error| Err(error.into()))
        }
    };
    if let Err(error) = &answer {
        error.log(found.template);
    }
    (Extension(RouteTemplate(found.template)), answer).into_response()
}

/// The answer to a path or method that does not exist.
pub(crate) async fn no_endpoint(uri: Uri) -> RestError {
    RestError::NoEndpoint {
        path: uri.path().to_owned(),
    }
}
