//! Peers in the hands of the operator: `/peers` and `/bans`. On the operator's listener
//! only.
//!
//! # Security
//! Who reaches the listener may use them. A web page may not, even if the operator's
//! browser reaches it: what changes something is refused to requests with an `Origin`,
//! which browsers send with every such request.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
    routing::{delete, get},
};
use pulse_primitives::peers::{PeerCommandError, PeerControl};
use serde::Deserialize;

use super::{json, refuse_pages, text};
use crate::rest;

type Control = Arc<dyn PeerControl>;

/// The body of `POST /bans`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BanRequest {
    /// An address, or a network as `IP/BITS`.
    target: String,
    /// For how long; a day if absent.
    seconds: Option<u64>,
}

/// All commands for peers.
pub(crate) fn routes(control: Control) -> Router {
    Router::new()
        .route("/peers", get(peers).fallback(rest::no_endpoint))
        .route(
            "/peers/{id}",
            delete(disconnect).fallback(rest::no_endpoint),
        )
        .route("/bans", get(bans).post(ban).fallback(rest::no_endpoint))
        .route("/bans/{*target}", delete(unban).fallback(rest::no_endpoint))
        .with_state(control)
}

async fn peers(State(control): State<Control>) -> Response {
    json("/peers", StatusCode::OK, &control.peers())
}

async fn disconnect(
    State(control): State<Control>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    const ROUTE: &str = "/peers/:id";
    if let Some(refused) = refuse_pages(ROUTE, &headers) {
        return refused;
    }
    match id.parse() {
        Ok(id) if control.disconnect(id) => text(ROUTE, StatusCode::OK, "disconnected"),
        _ => text(ROUTE, StatusCode::NOT_FOUND, "no such peer"),
    }
}

async fn bans(State(control): State<Control>) -> Response {
    json("/bans", StatusCode::OK, &control.bans())
}

async fn ban(State(control): State<Control>, headers: HeaderMap, body: Bytes) -> Response {
    const ROUTE: &str = "/bans";
    if let Some(refused) = refuse_pages(ROUTE, &headers) {
        return refused;
    }
    let request: BanRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(err) => return text(ROUTE, StatusCode::BAD_REQUEST, &err.to_string()),
    };
    match control.ban(&request.target, request.seconds) {
        Ok(ban) => json(ROUTE, StatusCode::OK, &ban),
        Err(err) => failed(ROUTE, &err),
    }
}

async fn unban(
    State(control): State<Control>,
    Path(target): Path<String>,
    headers: HeaderMap,
) -> Response {
    const ROUTE: &str = "/bans/:target";
    if let Some(refused) = refuse_pages(ROUTE, &headers) {
        return refused;
    }
    match control.unban(&target) {
        Ok(true) => text(ROUTE, StatusCode::OK, "lifted"),
        Ok(false) => text(ROUTE, StatusCode::NOT_FOUND, "no such ban"),
        Err(err) => failed(ROUTE, &err),
    }
}

fn failed(route: &'static str, err: &PeerCommandError) -> Response {
    let status = match err {
        PeerCommandError::TooManyBans => StatusCode::CONFLICT,
        _ => StatusCode::BAD_REQUEST,
    };
    text(route, status, &err.to_string())
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        http::{Request, header},
    };
    use http_body_util::BodyExt;
    use parking_lot::Mutex;
    use pulse_primitives::peers::{BanDetail, PeerDetail};
    use tower::ServiceExt;

    use super::*;

    #[derive(Default)]
    struct Fake(Mutex<Vec<BanDetail>>);

    impl PeerControl for Fake {
        fn peers(&self) -> Vec<PeerDetail> {
            Vec::new()
        }

        fn disconnect(&self, id: u64) -> bool {
            id == 7
        }

        fn bans(&self) -> Vec<BanDetail> {
            self.0.lock().clone()
        }

        fn ban(&self, target: &str, seconds: Option<u64>) -> Result<BanDetail, PeerCommandError> {
            if seconds == Some(0) {
                return Err(PeerCommandError::Duration);
            }
            let ban = BanDetail {
                target: target.to_owned(),
                since: 1,
                until: 1 + seconds.unwrap_or(86_400),
            };
            self.0.lock().push(ban.clone());
            Ok(ban)
        }

        fn unban(&self, target: &str) -> Result<bool, PeerCommandError> {
            let mut bans = self.0.lock();
            let before = bans.len();
            bans.retain(|ban| ban.target != target);
            Ok(bans.len() < before)
        }
    }

    async fn ask(control: &Control, request: Request<Body>) -> (u16, String) {
        let response = routes(Arc::clone(control)).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn request(method: &str, path: &str, body: &'static str) -> Request<Body> {
        let request = Request::builder().method(method).uri(path);
        request.body(Body::from(body)).unwrap()
    }

    #[tokio::test]
    async fn bans_are_set_listed_and_lifted() {
        let control: Control = Arc::new(Fake::default());
        let ban = r#"{"target":"10.0.0.0/8","seconds":60}"#;
        let set = r#"{"target":"10.0.0.0/8","since":1,"until":61}"#;
        let answer = ask(&control, request("POST", "/bans", ban)).await;
        assert_eq!(answer, (200, set.to_owned()));
        let listed = ask(&control, request("GET", "/bans", "")).await;
        assert_eq!(listed, (200, format!("[{set}]")));
        let lift = || request("DELETE", "/bans/10.0.0.0/8", "");
        assert_eq!(ask(&control, lift()).await, (200, "lifted".to_owned()));
        assert_eq!(ask(&control, lift()).await, (404, "no such ban".to_owned()));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_refused() {
        let control: Control = Arc::new(Fake::default());
        for body in [
            "",
            "[]",
            r#"{"seconds":1}"#,
            r#"{"target":"10.0.0.1","for":1}"#,
            r#"{"target":"10.0.0.1","seconds":0}"#,
        ] {
            let (status, _) = ask(&control, request("POST", "/bans", body)).await;
            assert_eq!(status, 400, "{body}");
        }
        assert!(control.bans().is_empty());
        for (path, status) in [("/peers/7", 200), ("/peers/8", 404), ("/peers/x", 404)] {
            assert_eq!(ask(&control, request("DELETE", path, "")).await.0, status);
        }
    }

    #[tokio::test]
    async fn web_pages_change_nothing() {
        let control: Control = Arc::new(Fake::default());
        let body = r#"{"target":"10.0.0.1"}"#;
        for (method, path) in [
            ("POST", "/bans"),
            ("DELETE", "/bans/10.0.0.1"),
            ("DELETE", "/peers/7"),
        ] {
            let mut request = request(method, path, body);
            let origin = "http://127.0.0.1:8080".parse().unwrap();
            request.headers_mut().insert(header::ORIGIN, origin);
            assert_eq!(ask(&control, request).await.0, 403);
        }
        assert!(control.bans().is_empty());
    }
}
