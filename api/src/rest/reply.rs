//! Answers: body, content type and how long caches may keep them.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use pulse_indexer::query::Cursor;
use serde::Serialize;

use super::params;

/// Where the next page of a list begins; absent on the last page.
const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

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
#[derive(Debug)]
pub(super) struct Reply {
    content_type: &'static str,
    cache: Cache,
    body: Body,
    /// Where the next page of a list begins.
    next: Option<Cursor>,
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
            body: Body::from(body),
            next: None,
        }
    }

    /// A list in JSON that is sent as it is made.
    pub(super) fn list(body: Body, cache: Cache, next: Option<Cursor>) -> Self {
        Self {
            content_type: "application/json",
            cache,
            body,
            next,
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
        let mut response = Response::new(self.body);
        for (name, value) in [
            (header::CONTENT_TYPE, self.content_type),
            (header::CACHE_CONTROL, cache),
        ] {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        if let Some(cursor) = self.next {
            let text = params::cursor_text(&cursor);
            let value = HeaderValue::try_from(text).expect("hex digits");
            response.headers_mut().insert(NEXT_CURSOR, value);
        }
        response
    }
}
