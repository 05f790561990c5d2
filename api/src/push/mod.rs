//! Push: WebSocket at `/ws` and Server-Sent Events at `/events`, also under `/api`.
//!
//! ```text
//! index and mempool -> follower -> hub (the chain) and registry (states) -> session
//! request -> ws or sse -> session -> state -> query -> JSON
//! ```
//!
//! # Correctness
//! - Of the chain clients are told events, in order and without a gap, or that there is one
//!   ([`hub`]). Of scripts, outpoints and transactions they are told states, and a new one
//!   whenever it differs from the last one that they were told ([`state`], [`session`]).
//! - Every subscription begins with the present state, so that nothing falls between.
//! - Each state is drawn from the index and the mempool of the same block.
//!
//! # Security
//! Any web page can open a WebSocket to any server. Those of origins that may not read the
//! REST API (`http.cors`) are refused.
//!
//! # Limits
//! Everything that a client can make grow has a limit ([`PushConfig`]). No client waits for
//! another: see [`session`].

mod config;
mod follower;
mod hub;
mod message;
mod request;
mod session;
mod shares;
mod sse;
mod state;
#[cfg(test)]
mod tests;
mod ws;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Extension, IntoResponse, Response},
    routing::get,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

pub use config::PushConfig;

use self::{
    hub::{Hub, Place},
    shares::{Part, Shares},
    state::{Key, State},
};
use crate::{
    access,
    blocking::Blocking,
    config::CorsOrigin,
    layers::RouteTemplate,
    metrics, registry,
    rest::{
        error::RestError,
        openapi::{ErrorText, Operation, Paths},
        parts,
    },
    server::Client,
    state::ApiState,
};

/// Seconds that a request waits for its turn to read the index.
const QUEUE_WAIT: Duration = Duration::from_secs(30);
/// Seconds that it may take then.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client waits for the follower to read the tip.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time for connections to end after a stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// What the page of another origin is told.
const ORIGIN_REFUSED: &str = "Origin not allowed";

/// Who wants to hear of what.
type Registry = registry::Registry<Key, Arc<State>>;
/// What a session has to tell its client.
type Outbox = registry::Outbox<Key, Arc<State>>;

/// What all sessions share. Cheap to clone.
#[derive(Clone)]
pub struct PushState(Arc<Inner>);

struct Inner {
    api: ApiState,
    config: PushConfig,
    hub: Hub,
    registry: Registry,
    blocking: Blocking,
    /// A slot for each connection.
    slots: Arc<Semaphore>,
    /// What the addresses of clients have.
    shares: Arc<Shares>,
    /// Subscriptions of all connections.
    subscriptions: AtomicUsize,
    /// Wakes the follower for a client that is the first.
    first_client: Notify,
    /// The tasks of all connections.
    tracker: TaskTracker,
    /// Ends them.
    stop: CancellationToken,
}

/// A connection that was let in.
struct Admission {
    /// Where it begins.
    place: Place,
    /// Its part in the share of its address; `None` if nobody knows that.
    part: Option<Part>,
    _slot: OwnedSemaphorePermit,
}

impl Inner {
    /// Whether nobody is there to be told anything.
    fn is_idle(&self) -> bool {
        self.slots.available_permits() == self.config.max_connections.get()
    }

    /// Counts new subscriptions; `false` if there would be too many.
    fn reserve(&self, count: usize) -> bool {
        let limit = self.config.max_subscriptions_total;
        let more = |all: usize| all.checked_add(count).filter(|all| *all <= limit);
        (self.subscriptions)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// So many subscriptions have ended.
    fn release(&self, count: usize) {
        self.subscriptions.fetch_sub(count, Ordering::Relaxed);
    }
}

impl PushState {
    /// State for pushing what `api` reads.
    #[must_use]
    pub fn new(api: ApiState, config: PushConfig) -> Self {
        Self(Arc::new(Inner {
            hub: Hub::new(config.replay_events.get()),
            registry: Registry::default(),
            blocking: Blocking::new(config.max_queries, QUEUE_WAIT, QUERY_TIMEOUT),
            slots: Arc::new(Semaphore::new(config.max_connections.get())),
            shares: Arc::default(),
            subscriptions: AtomicUsize::new(0),
            first_client: Notify::new(),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            api,
            config,
        }))
    }

    /// Result of `work`, which reads the index.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, RestError> + Send + 'static,
    ) -> Result<T, RestError> {
        let done = self.0.blocking.run(work).await;
        done.unwrap_or_else(|error| Err(error.into()))
    }

    /// Lets in a client whose request has `headers`, and whose connection comes from `from`.
    async fn admit(
        &self,
        headers: &HeaderMap,
        from: Option<Client>,
    ) -> Result<Admission, Box<Response>> {
        let refuse = |limit, error: RestError| {
            metrics::push_refused(limit);
            Box::new(error.into_response())
        };
        if !is_allowed_origin(&self.0.api.config().cors, headers) {
            metrics::push_refused("origin");
            let refused = (StatusCode::FORBIDDEN, ORIGIN_REFUSED);
            return Err(Box::new(refused.into_response()));
        }
        let trusted = &self.0.api.config().access.trusted_proxies;
        let part = from
            .map(|from| access::client(headers, from.addr, trusted))
            .map(|client| self.0.shares.admit(client, &self.0.config));
        let Some(part) = part.map_or(Some(None), |part| part.map(Some)) else {
            return Err(refuse("address_connections", RestError::TooManyConnections));
        };
        let slot = Arc::clone(&self.0.slots).try_acquire_owned();
        let slot = slot.map_err(|_| refuse("connections", RestError::Busy))?;
        let api = self.0.api.clone();
        let synced = self.read(move || parts::require_synced(&api)).await;
        synced.map_err(|error| refuse("not_synced", error))?;
        let place = self.place().await.ok_or_else(|| {
            let reason = "the tip has not been read yet".to_owned();
            refuse("not_synced", RestError::NotSynced { reason })
        })?;
        Ok(Admission {
            place,
            part,
            _slot: slot,
        })
    }

    /// Where a client begins. The first one after a while makes the follower go on.
    async fn place(&self) -> Option<Place> {
        let mut news = self.0.hub.watch();
        let followed = async {
            loop {
                if let Some(place) = self.0.hub.end() {
                    return Some(place);
                }
                self.0.first_client.notify_one();
                news.changed().await.ok()?;
            }
        };
        timeout(PATIENCE, followed).await.ok().flatten()
    }
}

/// Tells clients what happens until `stop`, then asks them to come back later. Returns when
/// no connection is left.
pub async fn run(push: PushState, stop: CancellationToken) {
    follower::run(push.clone(), stop.clone()).await;
    stop.cancelled().await;
    push.0.stop.cancel();
    push.0.tracker.close();
    let ended = timeout(STOP_TIMEOUT, push.0.tracker.wait()).await;
    if ended.is_err() {
        let count = push.0.tracker.len();
        info!(count, "leaving push connections that did not end in time");
    }
}

/// `/ws` and `/events`, also under `/api`; nothing if they are not enabled.
pub(crate) fn routes(push: PushState) -> Router {
    if !push.0.config.enabled {
        return Router::new();
    }
    Router::new()
        .route("/ws", get(ws::upgrade))
        .route("/api/ws", get(ws::upgrade))
        .route("/events", get(sse::stream))
        .route("/api/events", get(sse::stream))
        .with_state(push)
}

/// Describes both routes for the document of the API.
pub(crate) fn describe(paths: &mut Paths) {
    paths.tag(
        "Push",
        "Not Esplora: what is told as it happens; only on nodes that have it switched on",
    );
    ws::describe(paths);
    sse::describe(paths);
}

/// The errors that both routes have.
fn describe_errors(operation: &mut Operation) {
    let unreadable = RestError::BodyUnreadable {
        what: String::new(),
    };
    let disabled = RestError::NoEndpoint {
        path: String::new(),
    };
    operation
        .error(unreadable)
        .error(ErrorText::exact(403, ORIGIN_REFUSED))
        .error(disabled);
}

/// `response` of a route, for the metrics.
fn answer(route: &'static str, response: Result<Response<Body>, Box<Response>>) -> Response {
    let response = response.unwrap_or_else(|refused| *refused);
    (Extension(RouteTemplate(route)), response).into_response()
}

/// A request that cannot be understood.
fn bad_request(text: String) -> Box<Response> {
    let plain = HeaderValue::from_static("text/plain");
    let headers = [(header::CONTENT_TYPE, plain)];
    Box::new((StatusCode::BAD_REQUEST, headers, text).into_response())
}

/// Whether a page of the request's origin may read answers: any that CORS allows, and any of
/// this server itself. Programs that are no browsers name none.
fn is_allowed_origin(cors: &CorsOrigin, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    if cors
        .header()
        .is_some_and(|cors| cors == "*" || cors == origin)
    {
        return true;
    }
    let authority = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"));
    match (authority, headers.get(header::HOST)) {
        (Some((_, authority)), Some(host)) => authority.as_bytes() == host.as_bytes(),
        _ => false,
    }
}
