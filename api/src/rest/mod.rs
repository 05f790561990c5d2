//! The Esplora REST API, at `/` and under `/api`.
//!
//! path -> [`router`] (which route, with which parameters) -> [`snapshot`] (one view
//! of the index) or [`unconfirmed`] (with the mempool of the same block) -> the endpoint's
//! function -> [`reply`] or [`error`]
//!
//! # Correctness
//! - Each answer is drawn from one snapshot of the index, and its unconfirmed part from
//!   the mempool that builds upon the same block.
//! - Until the node is synced, what a later block could change is answered with 503,
//!   never with an empty list or a 404 ([`snapshot::Snapshot`]); or, if the operator has named
//!   another server, by that one ([`crate::fallback`]).

mod address;
mod balance;
mod block;
mod bulk;
pub(crate) mod error;
mod holdings;
mod internal;
mod list;
mod mempool;
mod merged;
mod model;
pub(crate) mod openapi;
mod outspends;
pub(crate) mod parts;
mod relatives;
mod reply;
mod router;
pub(crate) mod script;
mod snapshot;
mod submit;
#[cfg(test)]
mod tests;
mod tx;
mod unconfirmed;
mod wallet;

use std::sync::Arc;

use axum::{
    body::{Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header, request::Parts},
    response::{Extension, IntoResponse, Response},
};
use pulse_primitives::status::Trust;
use pulse_request::{body, path, query as params};

use crate::{at_height, fallback, layers::RouteTemplate, metrics, state::ApiState};
use error::RestError;
use params::Asked;
use reply::Reply;
use router::{Found, Tables, Work};
use snapshot::Snapshot;

/// Height up to which the answer to a `?partial=true` knows the chain.
const INDEXED_HEIGHT: HeaderName = HeaderName::from_static("x-indexed-height");

/// Answers every path of the public listener that belongs to no other route.
pub(crate) async fn handle(State(state): State<ApiState>, request: Request) -> Response {
    route(router::PUBLIC, &state, request).await
}

/// The same for the operator's listener.
pub(crate) async fn handle_operator(State(state): State<ApiState>, request: Request) -> Response {
    route(router::OPERATOR, &state, request).await
}

async fn route(tables: Tables, state: &ApiState, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let found = find(tables, state, &parts.method, &parts.uri);
    let Some(found) = found else {
        return no_endpoint(parts.uri).await.into_response();
    };
    let template = found.route.template;
    let asked = Asked::of(parts.uri.query());
    let (asked_path, query) = (path::matched_part(parts.uri.path()), parts.uri.query());
    if !asked.partial
        && let Some(response) = known_before(state, &found, &parts).await
    {
        return (Extension(RouteTemplate(template)), response).into_response();
    }
    // The layers have read and bounded it.
    let body = to_bytes(body, usize::MAX).await;
    let work = (body.map_err(RestError::unreadable))
        .and_then(|body| found.work(state.params().network, query, &asked, body));
    if asked.partial {
        return answer_part(state, work, template).await;
    }
    let answer = answer(state, work).await;
    if let Err(RestError::NotSynced { .. }) = &answer
        && let Some(answer) = passed_on(state, template, Question::of(&parts)).await
    {
        return answer;
    }
    if let Err(error) = &answer {
        error.log(template);
    }
    let types = state.config().script_types;
    let answer = answer.map(|reply| reply.to(asked_path, query, types));
    let response = (Extension(RouteTemplate(template)), answer).into_response();
    reply::unless_known(&parts.headers, response)
}

/// 304 to a client that has the answer, without making it: where that follows from the path and
/// a block, a look at where the block is tells its name.
async fn known_before(state: &ApiState, found: &Found<'_>, request: &Parts) -> Option<Response> {
    // The name does not depend on the answer, and a sibling's may be false.
    let is_proven = state.trust().trust == Trust::Validated;
    if !is_proven || !request.headers.contains_key(header::IF_NONE_MATCH) {
        return None;
    }
    let (basis, worker) = (found.basis()?, state.clone());
    let look = move || Snapshot::take(&worker)?.block_behind(basis);
    // What goes wrong here goes wrong again, and is told, when the answer is made.
    let block = state.blocking().run_short(look).await.ok()?.ok()??;
    let path = path::matched_part(request.uri.path());
    let types = state.config().script_types;
    let tag = reply::settled_etag(path, request.uri.query(), types, &block);
    let response = reply::if_named(&request.headers, tag)?;
    metrics::known_before();
    Some(response)
}

/// The route of a request, if this node has it.
fn find<'p>(tables: Tables, state: &ApiState, method: &Method, uri: &'p Uri) -> Option<Found<'p>> {
    router::find(tables, method, uri.path())
        .filter(|found| state.mempool().is_some() || !found.route.of_mempool)
}

/// What of a request another server may be asked.
#[derive(Clone, Copy)]
pub(crate) struct Question<'r> {
    method: &'r Method,
    uri: &'r Uri,
    headers: &'r HeaderMap,
}

impl<'r> Question<'r> {
    fn of(request: &'r Parts) -> Self {
        Self {
            method: &request.method,
            uri: &request.uri,
            headers: &request.headers,
        }
    }

    pub(crate) fn of_request(request: &'r Request) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
        }
    }
}

/// What another server answers to a question of the public listener, for a node that is not
/// synced; `None` if there is no such server, or the request may not be passed on.
pub(crate) async fn elsewhere(state: &ApiState, question: Question<'_>) -> Option<Response> {
    let found = find(router::PUBLIC, state, question.method, question.uri)?;
    // What cannot be read is nobody's question.
    let work = found.work(state.params().network, None, &Asked::of(None), Bytes::new());
    work.ok()?;
    passed_on(state, found.route.template, question).await
}

/// The same for a request that belongs to a route.
async fn passed_on(
    state: &ApiState,
    template: &'static str,
    question: Question<'_>,
) -> Option<Response> {
    let fallback = state.fallback()?;
    let is_question = matches!(*question.method, Method::GET | Method::HEAD);
    let is_first = !fallback::was_passed_on(question.headers);
    let is_whole = (question.uri.query()).is_none_or(at_height::is_all_of);
    if !is_question || !is_first || !is_whole {
        return None;
    }
    let ours = *state.query().tip_watch().borrow();
    let wanted = at_height::wanted(question.headers, question.uri).ok()?;
    let path = path::matched_part(question.uri.path());
    let response = fallback.answer(template, path, ours, wanted).await?;
    Some((Extension(RouteTemplate(template)), response).into_response())
}

/// The answer for a client that takes what is indexed so far for the whole.
/// It says how far that is, and caches must not take it for more.
async fn answer_part(
    state: &ApiState,
    work: Result<Work, RestError>,
    template: &'static str,
) -> Response {
    let (state, partial) = state.partial();
    let answer = answer(&state, work).await;
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
        headers.remove(header::ETAG);
    }
    response
}

/// The answer: on this thread if the work is short and need not wait.
async fn answer(state: &ApiState, work: Result<Work, RestError>) -> Result<Reply, RestError> {
    match work? {
        Work::Short(work) => {
            let (worker, short) = (state.impatient(), Arc::clone(&work));
            match state.blocking().run_short(move || short(&worker)).await? {
                Err(RestError::MempoolBehind) => {}
                answer => return answer,
            }
            let worker = state.clone();
            state.blocking().run(move || work(&worker)).await?
        }
        Work::Whole(work) => {
            let worker = state.clone();
            state.blocking().run(move || work(&worker)).await?
        }
        Work::List(work) => {
            let worker = state.clone();
            let work = move |outlet| work(&worker, outlet);
            state.blocking().run_long(work).await?
        }
        Work::Submission(work) => {
            let worker = state.clone();
            state.submitting().run(move || work(&worker)).await?
        }
    }
}

/// The answer to a path or method that does not exist.
pub(crate) async fn no_endpoint(uri: Uri) -> RestError {
    RestError::NoEndpoint {
        path: uri.path().to_owned(),
    }
}
