//! Labels in the form of BIP 329: `/labels`. On the operator's listener only.
//!
//! # Security
//! As for peers: what changes something is refused to web pages, and none can read, since no
//! CORS header is sent. Labels tell whose an address is: nothing of them is logged.
//!
//! # Limits
//! A request has at most as many lines as fit a request's body; export is read from the store
//! in pieces.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Extension, IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream;
use pulse_primitives::labels::{Label, LabelError, LabelKind, LabelStore};
use tokio::task::spawn_blocking;
use tracing::error;

use super::{answer, json, refuse_pages, text};
use crate::{layers::RouteTemplate, rest};

type Store = Arc<dyn LabelStore>;

/// Labels in one list, unless the operator says otherwise, and at most.
const LABELS_PER_PAGE: usize = 1_000;
/// Labels that an export reads at a time.
const EXPORT_PIECE: usize = 1_000;

const LIST: &str = "/labels";
const ONE: &str = "/labels/:type/:ref";
const EXPORT: &str = "/labels/export";
const IMPORT: &str = "/labels/import";

/// All commands for labels.
pub(crate) fn routes(store: Store) -> Router {
    Router::new()
        .route(LIST, get(list).post(set).fallback(rest::no_endpoint))
        .route(EXPORT, get(export).fallback(rest::no_endpoint))
        .route(IMPORT, post(import).fallback(rest::no_endpoint))
        .route(
            "/labels/{kind}/{reference}",
            get(one).delete(remove).fallback(rest::no_endpoint),
        )
        .with_state(store)
}

/// Does `work` on a thread that may block; logs why it failed.
async fn ask<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&dyn LabelStore) -> Result<T, LabelError> + Send + 'static,
) -> Result<T, (StatusCode, String)> {
    let store = Arc::clone(store);
    let done = spawn_blocking(move || work(&*store)).await;
    let failed = |text: String| (StatusCode::SERVICE_UNAVAILABLE, text);
    match done {
        Err(_) => Err(failed("the labels cannot be read or written".to_owned())),
        Ok(Ok(value)) => Ok(value),
        Ok(Err(err @ LabelError::Invalid { .. })) => {
            Err((StatusCode::BAD_REQUEST, err.to_string()))
        }
        Ok(Err(err @ LabelError::TooMany)) => Err((StatusCode::CONFLICT, err.to_string())),
        Ok(Err(err)) => {
            error!(err = &err as &dyn std::error::Error, "labels failed");
            Err(failed(err.to_string()))
        }
    }
}

/// A page of them: `?after_type=&after_ref=&limit=`.
async fn list(State(store): State<Store>, RawQuery(query): RawQuery) -> Response {
    let (mut kind, mut reference, mut limit) = (None, String::new(), LABELS_PER_PAGE);
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*name {
            "after_type" => match LabelKind::from_name(&value) {
                Some(found) => kind = Some(found),
                None => return text(LIST, StatusCode::BAD_REQUEST, "no such type"),
            },
            "after_ref" => reference = value.into_owned(),
            "limit" => match value.parse() {
                Ok(asked) if asked > 0 => limit = LABELS_PER_PAGE.min(asked),
                _ => return text(LIST, StatusCode::BAD_REQUEST, "Invalid limit"),
            },
            _ => {}
        }
    }
    let labels = ask(&store, move |store| {
        store.labels(kind.map(|kind| (kind, reference.as_str())), limit)
    });
    match labels.await {
        Ok(labels) => json(LIST, StatusCode::OK, &labels),
        Err((status, what)) => text(LIST, status, &what),
    }
}

async fn one(
    State(store): State<Store>,
    Path((kind, reference)): Path<(String, String)>,
) -> Response {
    let Some(kind) = LabelKind::from_name(&kind) else {
        return text(ONE, StatusCode::NOT_FOUND, "no such label");
    };
    match ask(&store, move |store| store.label(kind, &reference)).await {
        Ok(Some(label)) => json(ONE, StatusCode::OK, &label),
        Ok(None) => text(ONE, StatusCode::NOT_FOUND, "no such label"),
        Err((status, what)) => text(ONE, status, &what),
    }
}

/// One label as JSON.
async fn set(State(store): State<Store>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refused) = refuse_pages(LIST, &headers) {
        return refused;
    }
    let label: Label = match serde_json::from_slice(&body) {
        Ok(label) => label,
        Err(err) => return text(LIST, StatusCode::BAD_REQUEST, &err.to_string()),
    };
    let kept = label.clone();
    match ask(&store, move |store| store.set_labels(&[label])).await {
        Ok(()) => json(LIST, StatusCode::OK, &kept),
        Err((status, what)) => text(LIST, status, &what),
    }
}

async fn remove(
    State(store): State<Store>,
    Path((kind, reference)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Some(refused) = refuse_pages(ONE, &headers) {
        return refused;
    }
    let Some(kind) = LabelKind::from_name(&kind) else {
        return text(ONE, StatusCode::NOT_FOUND, "no such label");
    };
    match ask(&store, move |store| store.remove_label(kind, &reference)).await {
        Ok(true) => text(ONE, StatusCode::OK, "removed"),
        Ok(false) => text(ONE, StatusCode::NOT_FOUND, "no such label"),
        Err((status, what)) => text(ONE, status, &what),
    }
}

/// All labels, one JSON object per line.
async fn export(State(store): State<Store>) -> Response {
    let first = piece(store, None).await;
    let (lines, next) = match first {
        Ok(piece) => piece,
        Err((status, what)) => return text(EXPORT, status, &what),
    };
    // What fails later cuts the answer off, which clients see.
    let rest = stream::unfold((Some(lines), next), |(lines, next)| async move {
        match (lines, next) {
            (Some(lines), next) => Some((Ok(lines), (None, next))),
            (None, None) => None,
            (None, Some((store, after))) => match piece(store, Some(after)).await {
                Ok((lines, next)) => Some((Ok(lines), (None, next))),
                Err((_, what)) => Some((Err(std::io::Error::other(what)), (None, None))),
            },
        }
    });
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/jsonl"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    let template = Extension(RouteTemplate(EXPORT));
    (template, headers, Body::from_stream(rest)).into_response()
}

type Next = Option<(Store, (LabelKind, String))>;

/// Lines of the labels after one, and where to go on.
async fn piece(
    store: Store,
    after: Option<(LabelKind, String)>,
) -> Result<(Vec<u8>, Next), (StatusCode, String)> {
    let labels = ask(&store, move |store| {
        let after = after
            .as_ref()
            .map(|(kind, reference)| (*kind, reference.as_str()));
        store.labels(after, EXPORT_PIECE)
    });
    let labels = labels.await?;
    let mut lines = Vec::new();
    for label in &labels {
        serde_json::to_writer(&mut lines, label).expect("a label has string keys and no I/O");
        lines.push(b'\n');
    }
    let next = match labels.into_iter().nth(EXPORT_PIECE - 1) {
        Some(last) => Some((store, (last.kind, last.reference))),
        None => None,
    };
    Ok((lines, next))
}

/// Labels, one JSON object per line; all or none are taken.
async fn import(State(store): State<Store>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refused) = refuse_pages(IMPORT, &headers) {
        return refused;
    }
    let lines = body.split(|byte| *byte == b'\n').enumerate();
    let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    let mut labels = Vec::<Label>::new();
    for (index, line) in lines {
        let read = serde_json::from_slice::<Label>(line).map_err(|err| err.to_string());
        let checked = read.and_then(|label| match label.check() {
            Ok(()) => Ok(label),
            Err(err) => Err(err.to_string()),
        });
        match checked {
            Ok(label) => labels.push(label),
            Err(what) => {
                let what = format!("line {}: {what}", index + 1);
                return text(IMPORT, StatusCode::BAD_REQUEST, &what);
            }
        }
    }
    let count = labels.len();
    match ask(&store, move |store| store.set_labels(&labels)).await {
        Ok(()) => answer(
            IMPORT,
            StatusCode::OK,
            "application/json",
            format!(r#"{{"imported":{count}}}"#).into_bytes(),
        ),
        Err((status, what)) => text(IMPORT, status, &what),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::http::Request;
    use http_body_util::BodyExt;
    use parking_lot::Mutex;
    use tower::ServiceExt;

    use super::*;

    #[derive(Default)]
    struct Fake(Mutex<BTreeMap<(LabelKind, String), Label>>);

    impl LabelStore for Fake {
        fn label(&self, kind: LabelKind, reference: &str) -> Result<Option<Label>, LabelError> {
            Ok(self.0.lock().get(&(kind, reference.to_owned())).cloned())
        }

        fn set_labels(&self, labels: &[Label]) -> Result<(), LabelError> {
            labels.iter().try_for_each(Label::check)?;
            let labels = labels.iter().cloned();
            let rows = labels.map(|label| ((label.kind, label.reference.clone()), label));
            self.0.lock().extend(rows);
            Ok(())
        }

        fn remove_label(&self, kind: LabelKind, reference: &str) -> Result<bool, LabelError> {
            let removed = self.0.lock().remove(&(kind, reference.to_owned()));
            Ok(removed.is_some())
        }

        fn labels(
            &self,
            after: Option<(LabelKind, &str)>,
            limit: usize,
        ) -> Result<Vec<Label>, LabelError> {
            let rows = self.0.lock();
            let rows = rows.iter().filter(|((kind, reference), _)| {
                after.is_none_or(|after| (*kind, reference.as_str()) > after)
            });
            Ok(rows.take(limit).map(|(_, label)| label.clone()).collect())
        }
    }

    async fn call(router: &Router, request: (&str, &str, &str)) -> (u16, String) {
        let (method, path, body) = request;
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn labels_are_set_read_listed_and_removed() {
        let router = routes(Arc::new(Fake::default()));
        let tx = format!(
            r#"{{"type":"tx","ref":"{}","label":"rent"}}"#,
            "ab".repeat(32)
        );
        let output = format!(
            r#"{{"type":"output","ref":"{}:1","label":"savings","spendable":false}}"#,
            "ab".repeat(32)
        );
        for line in [&tx, &output] {
            assert_eq!(
                call(&router, ("POST", "/labels", line)).await,
                (200, line.clone())
            );
        }
        let path = format!("/labels/tx/{}", "ab".repeat(32));
        assert_eq!(call(&router, ("GET", &path, "")).await, (200, tx.clone()));
        let both = format!("[{output},{tx}]");
        assert_eq!(call(&router, ("GET", "/labels", "")).await, (200, both));
        let next = format!(
            "/labels?limit=1&after_type=output&after_ref={}%3A1",
            "ab".repeat(32)
        );
        assert_eq!(
            call(&router, ("GET", &next, "")).await,
            (200, format!("[{tx}]"))
        );
        let removed = (200, "removed".to_owned());
        assert_eq!(call(&router, ("DELETE", &path, "")).await, removed);
        let gone = (404, "no such label".to_owned());
        assert_eq!(call(&router, ("DELETE", &path, "")).await, gone);
        assert_eq!(call(&router, ("GET", &path, "")).await, gone);
        assert_eq!(call(&router, ("GET", "/labels/what/x", "")).await, gone);
        for (path, body, want) in [
            (
                "/labels",
                "{",
                "EOF while parsing an object at line 1 column 1",
            ),
            (
                "/labels",
                r#"{"type":"tx","ref":"x"}"#,
                "the reference is not of its type",
            ),
        ] {
            assert_eq!(
                call(&router, ("POST", path, body)).await,
                (400, want.to_owned())
            );
        }
    }

    #[tokio::test]
    async fn an_export_is_what_an_import_takes() {
        let router = routes(Arc::new(Fake::default()));
        let line =
            |n: usize| format!("{{\"type\":\"xpub\",\"ref\":\"{n:05}\",\"label\":\"é {n}\"}}\n");
        let lines: String = (0..2_500).map(line).collect();
        let taken = (200, r#"{"imported":2500}"#.to_owned());
        assert_eq!(
            call(&router, ("POST", "/labels/import", &lines)).await,
            taken
        );
        assert_eq!(
            call(&router, ("GET", "/labels/export", "")).await,
            (200, lines)
        );
        // All or none.
        let wrong = format!("{}\n\n{{\"type\":\"tx\",\"ref\":\"1\"}}", line(9_999));
        let (status, what) = call(&router, ("POST", "/labels/import", &wrong)).await;
        assert_eq!(
            (status, what.as_str()),
            (400, "line 4: the reference is not of its type")
        );
        let gone = call(&router, ("GET", "/labels/xpub/09999", "")).await;
        assert_eq!(gone.0, 404);
        let empty = routes(Arc::new(Fake::default()));
        assert_eq!(
            call(&empty, ("GET", "/labels/export", "")).await,
            (200, String::new())
        );
    }

    #[tokio::test]
    async fn web_pages_change_nothing() {
        let router = routes(Arc::new(Fake::default()));
        for (method, path) in [
            ("POST", "/labels"),
            ("POST", "/labels/import"),
            ("DELETE", "/labels/xpub/a"),
        ] {
            let request = Request::builder().method(method).uri(path);
            let request = request.header("origin", "https://page.example");
            let request = request.body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path}");
        }
    }
}
