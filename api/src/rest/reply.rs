//! Answers: body, content type and how long caches may keep them.

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// How long a cache may keep an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cache {
    /// Not at all: it answers an action.
    Never,
    /// Five seconds: any transaction changes it.
    Brief,
    /// Ten seconds: the next block may change it.
    Short,
    /// Five years: only a deep reorganisation could change it.
    Long,
}

/// An answer with status 200.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    content_type: &'static str,
    cache: Cache,
    body: Bytes,
}

impl Reply {
    /// Compact JSON of `value`.
    pub(super) fn json(value: &impl Serialize, cache: Cache) -> Self {
        let body = serde_json::to_vec(value).expect("the models have string keys and no I/O");
        Self::new("application/json", body, cache)
    }

    /// Bare text: no newline at the end, because clients parse the whole body.
    pub(super) fn text(value: impl ToString, cache: Cache) -> Self {
        Self::new("text/plain", value.to_string().into_bytes(), cache)
    }

    pub(super) fn binary(bytes: Vec<u8>, cache: Cache) -> Self {
        Self::new("application/octet-stream", bytes, cache)
    }

    fn new(content_type: &'static str, body: Vec<u8>, cache: Cache) -> Self {
        Self {
            content_type,
            cache,
            body: Bytes::from(body),
        }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let cache = match self.cache {
            Cache::Never => "public, max-age=0",
            Cache::Brief => "public, max-age=5",
            Cache::Short => "public, max-age=10",
            Cache::Long => "public, max-age=157784630",
        };
        let mut response = Response::new(Body::from(self.body));
        for (name, value) in [
            (header::CONTENT_TYPE, self.content_type),
            (header::CACHE_CONTROL, cache),
        ] {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
