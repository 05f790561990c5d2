//! Answers: body, content type, how long caches may keep them, and whether the client has
//! them already.

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Serialize;
use siphasher::sip::SipHasher13;

/// Where the next page of a list begins; absent on the last page.
const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");
const BINARY: &str = "application/octet-stream";

/// How long a cache may keep an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cache {
    /// Not at all: it answers an action.
    Never,
    /// Nowhere, not even by the client: it tells of a wallet.
    Private,
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
    /// Where the next page of a list begins, as text.
    next: Option<String>,
    /// Names these bytes; on answers that caches may keep for long.
    tag: Option<HeaderValue>,
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

    /// Bytes.
    pub(super) fn binary(bytes: Vec<u8>, cache: Cache) -> Self {
        Self::new(BINARY, bytes, cache)
    }

    /// Bytes that are still on their way, and those that `body` will bring.
    pub(super) fn binary_parts(body: Body, bytes: &[u8], cache: Cache) -> Self {
        Self {
            content_type: BINARY,
            cache,
            body,
            next: None,
            tag: tag(bytes, cache),
        }
    }

    fn new(content_type: &'static str, body: Vec<u8>, cache: Cache) -> Self {
        let tag = tag(&body, cache);
        Self {
            content_type,
            cache,
            body: Body::from(body),
            next: None,
            tag,
        }
    }

    /// A list in JSON that was made before it is sent.
    pub(super) fn whole_list(json: Vec<u8>, cache: Cache) -> Self {
        Self::new("application/json", json, cache)
    }

    /// A list in JSON that is sent as it is made.
    pub(super) fn list(body: Body, cache: Cache, next: Option<String>) -> Self {
        Self {
            content_type: "application/json",
            cache,
            body,
            next,
            tag: None,
        }
    }
}

/// The name of these bytes, if caches may keep them for long.
fn tag(bytes: &[u8], cache: Cache) -> Option<HeaderValue> {
    (cache == Cache::Long).then(|| etag(bytes))
}

/// A strong `ETag` (RFC 9110, 8.8.3): a hash of the bytes. It need not withstand anybody, since
/// all it tells apart are answers of this server to one and the same path.
fn etag(body: &[u8]) -> HeaderValue {
    let tag = format!("\"{:016x}\"", SipHasher13::new().hash(body));
    HeaderValue::try_from(tag).expect("hex digits")
}

/// Whether a client has what it asks for already: then 304 and no body (RFC 9110, 13.1.2).
pub(super) fn unless_known(asked: &HeaderMap, mut response: Response) -> Response {
    let Some(known) = asked.get(header::IF_NONE_MATCH) else {
        return response;
    };
    let headers = response.headers_mut();
    if !(headers.get(header::ETAG)).is_some_and(|tag| lists(known, tag)) {
        return response;
    }
    headers.remove(header::CONTENT_TYPE);
    let vary = HeaderValue::from_static("accept-encoding");
    headers.insert(header::VARY, vary);
    // Of no known length: a length of zero would say so of the answer itself (RFC 9110, 8.6).
    *response.body_mut() = Body::from_stream(stream::empty::<Result<Bytes, Infallible>>());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

/// Whether a list of tags holds one, or is `*`. Weak ones count as well.
fn lists(known: &HeaderValue, tag: &HeaderValue) -> bool {
    let mut known = known.as_bytes().split(|byte| *byte == b',');
    known.any(|known| {
        let known = known.trim_ascii();
        known == b"*" || known.strip_prefix(b"W/").unwrap_or(known) == tag.as_bytes()
    })
}

impl Cache {
    /// The value of `Cache-Control`.
    pub(super) const fn header(self) -> &'static str {
        match self {
            Self::Never => "public, max-age=0",
            Self::Private => "no-store",
            Self::Brief => "public, max-age=5",
            Self::Short => "public, max-age=10",
            Self::Long => "public, max-age=157784630",
        }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let cache = self.cache.header();
        let mut response = Response::new(self.body);
        for (name, value) in [
            (header::CONTENT_TYPE, self.content_type),
            (header::CACHE_CONTROL, cache),
        ] {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        if let Some(text) = self.next {
            let value = HeaderValue::try_from(text).expect("hex digits");
            response.headers_mut().insert(NEXT_CURSOR, value);
        }
        if let Some(tag) = self.tag {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::body::HttpBody;

    use super::*;

    #[test]
    fn what_a_client_has_is_not_sent_again() {
        let reply = || Reply::text("abc", Cache::Long).into_response();
        let tag = reply().headers()[header::ETAG].clone();
        let tag = tag.to_str().unwrap();
        assert_eq!(tag.len(), 18);
        let weak = format!("\"0\" , W/{tag}");
        for (known, want) in [
            (tag, 304),
            (weak.as_str(), 304),
            ("*", 304),
            ("\"0\"", 200),
            (&tag[1..17], 200),
        ] {
            let mut asked = HeaderMap::new();
            asked.insert(header::IF_NONE_MATCH, HeaderValue::from_str(known).unwrap());
            let response = unless_known(&asked, reply());
            assert_eq!(response.status().as_u16(), want, "{known}");
            let len = HttpBody::size_hint(response.body()).exact();
            assert_eq!(len, (want == 200).then_some(3));
            assert!(response.headers().contains_key(header::CACHE_CONTROL));
            assert_eq!(response.headers()[header::ETAG], tag);
        }
        let other = Reply::text("abd", Cache::Long).into_response();
        assert_ne!(other.headers()[header::ETAG], tag);
    }

    #[test]
    fn what_may_change_has_no_tag() {
        for cache in [Cache::Never, Cache::Brief, Cache::Short] {
            let response = Reply::text("abc", cache).into_response();
            assert!(!response.headers().contains_key(header::ETAG));
        }
    }
}
