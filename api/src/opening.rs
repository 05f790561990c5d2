//! Listeners that answer before the node is open.
//!
//! ```text
//! bound -> 503 with what the node is doing -> open: the routes of the node
//! ```
//!
//! Opening the chain takes minutes after a kill. Until then `/health/live` says that the
//! process answers, `/metrics` what it has recorded, and everything else is 503 with the
//! reason, which is not an answer that a client could take for a true one.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;
use pulse_primitives::status::Readiness;
use tower::{ServiceExt, service_fn};

use crate::{config::CorsOrigin, layers, ops};

/// When a client may ask again, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");
/// Requests that are refused at the same time.
const MAX_REQUESTS: usize = 4096;

/// What the node is doing until it is open. Clones tell the same.
#[derive(Clone)]
pub struct Opening {
    doing: Arc<Mutex<&'static str>>,
    prometheus: PrometheusHandle,
}

impl Opening {
    /// A node that has just started.
    #[must_use]
    pub fn new(prometheus: PrometheusHandle) -> Self {
        Self {
            doing: Arc::new(Mutex::new("the node is starting")),
            prometheus,
        }
    }

    /// Tells from now on why there is no other answer, in a few words for an operator.
    pub fn doing(&self, what: &'static str) {
        *self.doing.lock() = what;
    }

    /// A listener's answers, which are those of the node once they are
    /// [given](Door::open). `metrics`: whether the listener has `/metrics`.
    #[must_use]
    pub fn door(&self, cors: CorsOrigin, metrics: bool) -> Door {
        let open = Arc::new(OnceLock::<Router>::new());
        let closed = Router::new()
            .fallback(refuse)
            .with_state((self.clone(), metrics));
        let closed = layers::wrap(closed, cors, MAX_REQUESTS);
        let service = service_fn({
            let open = Arc::clone(&open);
            move |request: Request| {
                let router = open.get().unwrap_or(&closed).clone();
                async move { Ok::<_, Infallible>(router.oneshot(request).await.into_response()) }
            }
        });
        let router = Router::new().fallback_service(service);
        Door { open, router }
    }
}

/// The answers of one listener.
#[derive(Clone)]
pub struct Door {
    open: Arc<OnceLock<Router>>,
    router: Router,
}

impl Door {
    /// What the listener serves, before and after.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// From now on requests are answered by `router`. Only the first call counts.
    pub fn open(&self, router: Router) {
        // A second one would be a mistake in the wiring that harms nobody.
        let _ = self.open.set(router);
    }
}

async fn refuse(State((opening, metrics)): State<(Opening, bool)>, request: Request) -> Response {
    match request.uri().path() {
        "/health/live" => return ops::live().await,
        "/metrics" if metrics => return ops::rendered(&opening.prometheus),
        _ => {}
    }
    let readiness = Readiness::NotSynced {
        reason: (*opening.doing.lock()).to_owned(),
    };
    let retry = [(header::RETRY_AFTER, RETRY_AFTER)];
    (
        retry,
        ops::health_answer(StatusCode::SERVICE_UNAVAILABLE, &readiness),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::get};
    use http_body_util::BodyExt;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    async fn ask(door: &Door, path: &str) -> (StatusCode, String, bool) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = door.router().oneshot(request).await.unwrap();
        let status = response.status();
        let retry = response.headers().contains_key(header::RETRY_AFTER);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap(), retry)
    }

    #[tokio::test]
    async fn until_the_node_is_open_it_says_what_it_does_and_then_it_answers() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let opening = Opening::new(recorder.handle());
        let door = opening.door(CorsOrigin::none(), true);
        opening.doing("the node is starting: opening the chain");
        let expected =
            r#"{"state":"not_synced","reason":"the node is starting: opening the chain"}"#;
        for path in ["/health", "/stats", "/blocks/tip/hash", "/api/tx", "/"] {
            let (status, body, retry) = ask(&door, path).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            assert_eq!((body.as_str(), retry), (expected, true), "{path}");
        }
        assert_eq!(ask(&door, "/health/live").await.0, StatusCode::OK);
        assert_eq!(ask(&door, "/metrics").await.0, StatusCode::OK);
        let without = opening.door(CorsOrigin::none(), false);
        let (status, ..) = ask(&without, "/metrics").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);

        // A connection that was there before gets the answers, too.
        let (before, path) = (door.router(), "/blocks/tip/hash");
        door.open(Router::new().route(path, get(|| async { "00" })));
        let request = Request::get(path).body(Body::empty()).unwrap();
        assert_eq!(
            before.oneshot(request).await.unwrap().status(),
            StatusCode::OK
        );
        assert_eq!(ask(&door, path).await.1, "00");
    }
}
