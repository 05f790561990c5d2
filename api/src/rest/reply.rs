//! Answers: body, content type, how long caches may keep them, and whether the client has
//! them already.
//!
//! # Correctness
//! The `ETag` of an answer that caches may keep for long is a hash of its bytes; or, if it
//! follows from its path and one block alone ([`Cache::Settled`]), of these and the version of
//! the program, so that it is known before the answer is made. It changes when the block does.

use std::{convert::Infallible, hash::Hasher};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use pulse_primitives::bitcoin::{BlockHash, hashes::Hash};
use serde::Serialize;
use siphasher::sip::SipHasher13;

use crate::ScriptTypes;

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
    /// The same, of an answer that follows from its path and this block alone.
    Settled(BlockHash),
}

/// An answer with status 200.
#[derive(Debug)]
pub(super) struct Reply {
    content_type: &'static str,
    cache: Cache,
    body: Body,
    /// Where the next page of a list begins, as text.
    next: Option<String>,
    /// Names it; on answers that caches may keep for long.
    tag: Option<Tag>,
}

/// What the name of an answer is made of.
#[derive(Debug, PartialEq, Eq)]
enum Tag {
    /// Its bytes.
    Bytes(HeaderValue),
    /// Its path and this block.
    Block(BlockHash),
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
            tag: Tag::of(bytes, cache),
        }
    }

    fn new(content_type: &'static str, body: Vec<u8>, cache: Cache) -> Self {
        let tag = Tag::of(&body, cache);
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
        let tag = match cache {
            Cache::Settled(block) => Some(Tag::Block(block)),
            _ => None,
        };
        Self {
            content_type: "application/json",
            cache,
            body,
            next,
            tag,
        }
    }

    /// As the answer to this question.
    pub(super) fn to(mut self, path: &str, query: Option<&str>, types: ScriptTypes) -> Self {
        if let Some(Tag::Block(block)) = self.tag {
            self.tag = Some(Tag::Bytes(settled_etag(path, query, types, &block)));
        }
        self
    }
}

impl Tag {
    /// The name of these bytes, if caches may keep them for long.
    fn of(bytes: &[u8], cache: Cache) -> Option<Self> {
        match cache {
            Cache::Long => Some(Self::Bytes(etag(bytes))),
            Cache::Settled(block) => Some(Self::Block(block)),
            Cache::Never | Cache::Private | Cache::Brief | Cache::Short => None,
        }
    }
}

/// A strong `ETag` (RFC 9110, 8.8.3): a hash of the bytes. It need not withstand anybody, since
/// all it tells apart are answers of this server to one and the same path.
fn etag(body: &[u8]) -> HeaderValue {
    quoted(SipHasher13::new().hash(body))
}

/// The `ETag` of an answer that follows from `path` (without `/api`), `query` and `block`. Another
/// version may write the same answer otherwise, and so do nodes with other names of scripts.
pub(super) fn settled_etag(
    path: &str,
    query: Option<&str>,
    types: ScriptTypes,
    block: &BlockHash,
) -> HeaderValue {
    let mut hasher = SipHasher13::new();
    let types = match types {
        ScriptTypes::Blockstream => "",
        ScriptTypes::Mempool => "mempool",
    };
    let version = env!("CARGO_PKG_VERSION");
    for part in [version, path, query.unwrap_or_default(), types] {
        hasher.write(part.as_bytes());
        // Occurs in none of them.
        hasher.write(b"\n");
    }
    hasher.write(block.as_byte_array());
    quoted(hasher.finish())
}

fn quoted(hash: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{hash:016x}\"")).expect("hex digits")
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
    empty(&mut response);
    response
}

/// 304 for a client that names the settled answer `tag` among those it has. `None` if it does
/// not: `*` is not its name, since it is not known whether there is an answer.
pub(super) fn if_named(asked: &HeaderMap, tag: HeaderValue) -> Option<Response> {
    let known = asked.get(header::IF_NONE_MATCH)?;
    if !names(known).any(|name| name == tag.as_bytes()) {
        return None;
    }
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    let cache = HeaderValue::from_static(Cache::Long.header());
    headers.insert(header::CACHE_CONTROL, cache);
    headers.insert(header::ETAG, tag);
    empty(&mut response);
    Some(response)
}

/// Makes a 304 of it.
fn empty(response: &mut Response) {
    let vary = HeaderValue::from_static("accept-encoding");
    response.headers_mut().insert(header::VARY, vary);
    // Of no known length: a length of zero would say so of the answer itself (RFC 9110, 8.6).
    *response.body_mut() = Body::from_stream(stream::empty::<Result<Bytes, Infallible>>());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
}

/// The tags of a list; weak ones count as strong.
fn names(known: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let known = known.as_bytes().split(|byte| *byte == b',');
    let known = known.map(<[u8]>::trim_ascii);
    known.map(|known| known.strip_prefix(b"W/").unwrap_or(known))
}

/// Whether a list of tags holds one, or is `*`.
fn lists(known: &HeaderValue, tag: &HeaderValue) -> bool {
    names(known).any(|name| name == b"*" || name == tag.as_bytes())
}

impl Cache {
    /// The value of `Cache-Control`.
    pub(super) const fn header(self) -> &'static str {
        match self {
            Self::Never => "public, max-age=0",
            Self::Private => "no-store",
            Self::Brief => "public, max-age=5",
            Self::Short => "public, max-age=10",
            Self::Long | Self::Settled(_) => "public, max-age=157784630",
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
        if let Some(Tag::Bytes(tag)) = self.tag {
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
    fn a_settled_answer_is_named_by_its_question_and_its_block() {
        const B: ScriptTypes = ScriptTypes::Blockstream;
        let block = |byte| BlockHash::from_byte_array([byte; 32]);
        let tag = |path, query, byte, text: &str| {
            let reply = Reply::text(text, Cache::Settled(block(byte))).to(path, query, B);
            reply.into_response().headers()[header::ETAG].clone()
        };
        let known = tag("/a", None, 1, "abc");
        assert_eq!(known, tag("/a", None, 1, "abc"));
        assert_eq!(known, settled_etag("/a", None, B, &block(1)));
        assert_ne!(
            known,
            settled_etag("/a", None, ScriptTypes::Mempool, &block(1))
        );
        for other in [
            tag("/b", None, 1, "abc"),
            tag("/a", Some("b"), 1, "abc"),
            tag("/a", None, 2, "abc"),
        ] {
            assert_ne!(known, other);
        }
        let list = Reply::list(Body::empty(), Cache::Settled(block(1)), None).to("/a", None, B);
        assert_eq!(list.into_response().headers()[header::ETAG], known);

        let mut asked = HeaderMap::new();
        assert!(if_named(&asked, known.clone()).is_none());
        for (text, is_named) in [
            (format!("\"0\", W/{}", known.to_str().unwrap()), true),
            ("*".to_owned(), false),
            ("\"0\"".to_owned(), false),
        ] {
            asked.insert(header::IF_NONE_MATCH, HeaderValue::try_from(text).unwrap());
            let response = if_named(&asked, known.clone());
            assert_eq!(response.is_some(), is_named);
            if let Some(response) = response {
                assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
                assert_eq!(response.headers()[header::ETAG], known);
                assert_eq!(
                    response.headers()[header::CACHE_CONTROL],
                    Cache::Long.header()
                );
            }
        }
    }

    #[test]
    fn what_may_change_has_no_tag() {
        for cache in [Cache::Never, Cache::Brief, Cache::Short] {
            let response = Reply::text("abc", cache).into_response();
            assert!(!response.headers().contains_key(header::ETAG));
        }
    }
}
