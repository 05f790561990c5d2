//! The Esplora REST API, at `/` and under `/api`.
//!
//! path -> [`router`] (which endpoint, with which parameters) -> [`snapshot`] (one view
//! of the index) or [`unconfirmed`] (with the mempool of the same block) -> the endpoint's
//! function -> [`reply`] or [`error`]
//!
//! # Correctness
//! - Each answer is drawn from one snapshot of the index, and its unconfirmed part from
//!   the mempool that builds upon the same block.
//! - Until the node is synced, what a later block could change is answered with 503,
//!   never with an empty list or a 404 ([`snapshot::Snapshot`]).

mod address;
mod block;
pub(crate) mod error;
mod list;
mod mempool;
mod model;
mod params;
mod reply;
mod router;
mod script;
mod snapshot;
mod submit;
#[cfg(test)]
mod tests;
mod tx;
mod unconfirmed;

use axum::{
    body::to_bytes,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Uri, header},
    response::{Extension, IntoResponse, Response},
};

use crate::{layers::RouteTemplate, state::ApiState};
use error::RestError;
use params::Asked;
use reply::Reply;
use router::{Endpoint, Target};

/// Height up to which the answer to a `?partial=true` knows the chain.
const INDEXED_HEIGHT: HeaderName = HeaderName::from_static("x-indexed-height");

/// Answers every path that belongs to no other route.
pub(crate) async fn handle(State(state): State<ApiState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let found = router::find(&parts.method, parts.uri.path(), state.params().network);
    let Some(found) = found.filter(|found| state.mempool().is_some() || !found.is_of_mempool())
    else {
        return no_endpoint(parts.uri).await.into_response();
    };
    let worker = state.clone();
    let answer = match found.target {
        Err(error) => Err(error),
        Ok(Target::Read(endpoint)) => {
            let asked = Asked::of(parts.uri.query());
            if asked.partial {
                return answer_part(&state, endpoint, asked, found.template).await;
            }
            answer(&state, endpoint, asked).await
        }
        Ok(Target::Submit(submission)) => {
            // The layers have read and bounded it.
            match to_bytes(body, usize::MAX).await {
                Err(error) => Err(RestError::BodyUnreadable {
                    what: error.to_string(),
                }),
                Ok(body) => {
                    let work = move || submission.answer(&worker, parts.uri.query(), &body);
                    let answer = state.submitting().run(work).await;
                    answer.unwrap_or_else(|error| Err(error.into()))
                }
            }
        }
    };
    if let Err(error) = &answer {
        error.log(found.template);
    }
    (Extension(RouteTemplate(found.template)), answer).into_response()
}

/// The answer of an endpoint for a client that takes what is indexed so far for the whole.
/// It says how far that is, and caches must not take it for more.
async fn answer_part(
    state: &ApiState,
    endpoint: Endpoint,
    asked: Asked,
    template: &'static str,
) -> Response {
    let (state, partial) = state.partial();
    let answer = answer(&state, endpoint, asked).await;
    if let Err(error) = &answer {
        error.log(template);
    }
    let mut response = (Extension(RouteTemplate(template)), answer).into_response();
    let headers = response.headers_mut();
    if let Some(height) = partial.indexed() {
        headers.insert(INDEXED_HEIGHT, HeaderValue::from(height));
    }
    if headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// The answer of an endpoint: on this thread if it is short and need not wait.
async fn answer(state: &ApiState, endpoint: Endpoint, asked: Asked) -> Result<Reply, RestError> {
    if endpoint.is_short() {
        let (worker, endpoint) = (state.impatient(), endpoint.clone());
        let work = move || endpoint.answer(&worker);
        match state.blocking().run_short(work).await? {
            Err(RestError::MempoolBehind) => {}
            answer => return answer,
        }
    }
    let worker = state.clone();
    if endpoint.is_list() {
        let work = move |early| endpoint.list(&worker, &asked, early);
        return state.blocking().run_long(work).await?;
    }
    let work = move || endpoint.answer(&worker);
    state.blocking().run(work).await?
}

/// The answer to a path or method that does not exist.
pub(crate) async fn no_endpoint(uri: Uri) -> RestError {
    RestError::NoEndpoint {
        path: uri.path().to_owned(),
    }
}
