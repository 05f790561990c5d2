//! API keys in the hands of the operator: `/api-keys`. On the operator's listener only.
//!
//! # Security
//! A key is shown once, by the answer that makes it. What is listed and exported cannot be used
//! as a key. What changes something is refused to web pages, as for peers.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
    routing::{delete, get, post},
};
use pulse_primitives::api_keys::{ApiKey, ApiKeyError, ApiKeyStore};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tracing::{error, info};

use super::{json, refuse_pages, text};
use crate::rest;

type Store = Arc<dyn ApiKeyStore>;

const LIST: &str = "/api-keys";
const ONE: &str = "/api-keys/:id";
const EXPORT: &str = "/api-keys/export";
const IMPORT: &str = "/api-keys/import";

/// The body of `POST /api-keys`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRequest {
    name: String,
    /// What the configuration says if absent.
    requests_per_second: Option<u32>,
}

/// A key as the operator sees it.
#[derive(Debug, Serialize)]
struct KeyJson<'a> {
    id: &'a str,
    name: &'a str,
    created: u64,
    requests_per_second: Option<u32>,
    /// Only when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

impl<'a> KeyJson<'a> {
    fn new(kept: &'a ApiKey, key: Option<&'a str>) -> Self {
        Self {
            id: &kept.id,
            name: &kept.name,
            created: kept.created,
            requests_per_second: kept.requests_per_second,
            key,
        }
    }
}

/// All commands for keys.
pub(crate) fn routes(store: Store) -> Router {
    Router::new()
        .route(LIST, get(list).post(create).fallback(rest::no_endpoint))
        .route(EXPORT, get(export).fallback(rest::no_endpoint))
        .route(IMPORT, post(import).fallback(rest::no_endpoint))
        .route("/api-keys/{id}", delete(revoke).fallback(rest::no_endpoint))
        .with_state(store)
}

/// Does `work` on a thread that may block; logs why it failed.
async fn ask<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&dyn ApiKeyStore) -> Result<T, ApiKeyError> + Send + 'static,
) -> Result<T, (StatusCode, String)> {
    let store = Arc::clone(store);
    match spawn_blocking(move || work(&*store)).await {
        Err(_) => Err((
            StatusCode::SERVICE_UNAVAILABLE,
            "the keys cannot be written".to_owned(),
        )),
        Ok(Ok(value)) => Ok(value),
        Ok(Err(err @ ApiKeyError::Invalid { .. })) => {
            Err((StatusCode::BAD_REQUEST, err.to_string()))
        }
        Ok(Err(err @ ApiKeyError::TooMany)) => Err((StatusCode::CONFLICT, err.to_string())),
        Ok(Err(err)) => {
            error!(err = &err as &dyn std::error::Error, "API keys failed");
            Err((StatusCode::SERVICE_UNAVAILABLE, err.to_string()))
        }
    }
}

async fn list(State(store): State<Store>) -> Response {
    let keys = store.api_keys();
    let keys: Vec<_> = keys.iter().map(|kept| KeyJson::new(kept, None)).collect();
    json(LIST, StatusCode::OK, &keys)
}

async fn create(State(store): State<Store>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refused) = refuse_pages(LIST, &headers) {
        return refused;
    }
    let asked: KeyRequest = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(err) => return text(LIST, StatusCode::BAD_REQUEST, &err.to_string()),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    let made = ask(&store, move |store| {
        store.create_key(&asked.name, asked.requests_per_second, now)
    });
    match made.await {
        Ok(made) => {
            info!(id = made.kept.id, "API key made");
            let shown = KeyJson::new(&made.kept, Some(&made.key));
            json(LIST, StatusCode::OK, &shown)
        }
        Err((status, what)) => text(LIST, status, &what),
    }
}

async fn revoke(
    State(store): State<Store>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    if let Some(refused) = refuse_pages(ONE, &headers) {
        return refused;
    }
    let revoked = ask(&store, {
        let id = id.clone();
        move |store| store.revoke_key(&id)
    });
    match revoked.await {
        Ok(true) => {
            info!(id, "API key revoked");
            text(ONE, StatusCode::OK, "revoked")
        }
        Ok(false) => text(ONE, StatusCode::NOT_FOUND, "no such key"),
        Err((status, what)) => text(ONE, status, &what),
    }
}

/// What is kept of each key.
async fn export(State(store): State<Store>) -> Response {
    json(EXPORT, StatusCode::OK, &store.api_keys())
}

/// The same the other way; all or none are taken.
async fn import(State(store): State<Store>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refused) = refuse_pages(IMPORT, &headers) {
        return refused;
    }
    let keys: Vec<ApiKey> = match serde_json::from_slice(&body) {
        Ok(keys) => keys,
        Err(err) => return text(IMPORT, StatusCode::BAD_REQUEST, &err.to_string()),
    };
    let count = keys.len();
    match ask(&store, move |store| store.import_keys(&keys)).await {
        Ok(()) => {
            info!(count, "API keys imported");
            json(
                IMPORT,
                StatusCode::OK,
                &serde_json::json!({"imported": count}),
            )
        }
        Err((status, what)) => text(IMPORT, status, &what),
    }
}
