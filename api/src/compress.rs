//! Answers in gzip or zstd, for clients that ask for it.
//!
//! # Correctness
//! An answer that could have been compressed says that it varies (`Vary`), whether it was or
//! not. The bytes of a compressed one are others than those that its strong `ETag` stands
//! for, so that becomes a weak one (RFC 9110, 8.8.1); `If-None-Match` compares weakly.
//!
//! # Limits
//! Who does not ask pays for a look at the headers. Short answers and raw bytes of the chain,
//! which hardly shrink, are sent as they are.

use std::{convert::Infallible, future::ready};

use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, HeaderValue, Request, header},
    response::Response,
};
use http_body_util::BodyExt;
use tower::{ServiceExt, service_fn};
use tower_http::{
    CompressionLevel,
    compression::{Compression, predicate::SizeAbove},
};

/// Shortest answer that is worth it, in bytes: about what fits into one packet.
const WORTH_IT: u64 = 1024;

/// What the client accepts, if that is anything but answers as they are.
pub(crate) fn accepted(headers: &HeaderMap) -> Option<HeaderValue> {
    let accepted = headers.get(header::ACCEPT_ENCODING)?;
    (accepted.as_bytes() != b"identity").then(|| accepted.clone())
}

/// The answer as the client wants it.
pub(crate) async fn apply(accepted: Option<HeaderValue>, mut response: Response) -> Response {
    if !is_worth_it(&response) {
        return response;
    }
    let vary = HeaderValue::from_static("accept-encoding");
    response.headers_mut().append(header::VARY, vary);
    let Some(accepted) = accepted else {
        return response;
    };
    let status = response.status();
    let mut request = Request::new(());
    request
        .headers_mut()
        .insert(header::ACCEPT_ENCODING, accepted);
    // The encoders ask once more after the end, which a stream need not bear.
    let mut response = Some(response.map(|body| Body::new(body.fuse())));
    let answer = service_fn(move |_: Request<()>| {
        let response = response.take().unwrap_or_default();
        ready(Ok::<_, Infallible>(response))
    });
    let compress = Compression::new(answer)
        .quality(CompressionLevel::Fastest)
        .compress_when(SizeAbove::new(0));
    let Ok(compressed) = compress.oneshot(request).await;
    let mut response = compressed.map(Body::new);
    // A client that refuses every coding gets the answer as it is.
    *response.status_mut() = status;
    if response.headers().contains_key(header::CONTENT_ENCODING) {
        weaken(response.headers_mut());
    }
    response
}

fn is_worth_it(response: &Response) -> bool {
    let headers = response.headers();
    let is_text = headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind.starts_with(b"application/json") || kind.starts_with(b"text/plain")
    });
    is_text
        && !headers.contains_key(header::CONTENT_ENCODING)
        && (response.body().size_hint().exact()).is_none_or(|len| len >= WORTH_IT)
}

/// Makes a strong `ETag` a weak one.
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(header::ETAG) else {
        return;
    };
    if tag.as_bytes().starts_with(b"\"") {
        let weak = [b"W/", tag.as_bytes()].concat();
        if let Ok(weak) = HeaderValue::from_bytes(&weak) {
            headers.insert(header::ETAG, weak);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use futures_util::stream;

    use super::*;

    fn answer(kind: &'static str, len: usize) -> Response {
        let mut response = Response::new(Body::from(vec![b'7'; len]));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::ETAG, HeaderValue::from_static("\"1\""));
        response
    }

    async fn sent(accept: &'static str, kind: &'static str, len: usize) -> (HeaderMap, usize) {
        let mut asked = HeaderMap::new();
        asked.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accept));
        let response = apply(accepted(&asked), answer(kind, len)).await;
        let (parts, body) = response.into_parts();
        (
            parts.headers,
            body.collect().await.unwrap().to_bytes().len(),
        )
    }

    #[tokio::test]
    async fn who_asks_gets_fewer_bytes_under_a_weak_tag() {
        for (accept, want) in [
            ("gzip", "gzip"),
            ("zstd", "zstd"),
            ("gzip;q=0.5, zstd", "zstd"),
            ("gzip, zstd;q=0", "gzip"),
        ] {
            for kind in ["application/json", "text/plain"] {
                let (headers, len) = sent(accept, kind, 5000).await;
                assert_eq!(headers[header::CONTENT_ENCODING], want, "{accept}");
                assert_eq!(headers[header::VARY], "accept-encoding");
                assert_eq!(headers[header::ETAG], "W/\"1\"");
                assert!(len < 500, "{len}");
            }
        }
    }

    #[tokio::test]
    async fn others_get_the_answer_as_it_is() {
        for (accept, kind, len, varies) in [
            ("identity", "application/json", 5000, true),
            ("br", "application/json", 5000, true),
            ("gzip;q=0", "application/json", 5000, true),
            ("identity;q=0, *;q=0", "application/json", 5000, true),
            ("gzip", "application/json", 1000, false),
            ("gzip", "application/octet-stream", 5000, false),
            ("gzip", "text/event-stream", 5000, false),
        ] {
            let (headers, sent) = sent(accept, kind, len).await;
            assert!(!headers.contains_key(header::CONTENT_ENCODING), "{accept}");
            assert_eq!(headers.contains_key(header::VARY), varies, "{kind}");
            assert_eq!(headers[header::ETAG], "\"1\"");
            assert_eq!(sent, len);
        }
    }

    /// A stream of this kind panics when it is asked after its end.
    #[tokio::test]
    async fn an_answer_that_is_made_while_it_is_sent_ends_where_it_ends() {
        for accept in ["gzip", "zstd"] {
            for pieces in [0, 1, 3] {
                let pieces = stream::unfold(pieces, |left: usize| async move {
                    let piece = Bytes::from_static(b"piece");
                    (left > 0).then(|| (Ok::<_, Infallible>(piece), left - 1))
                });
                let mut response = Response::new(Body::from_stream(pieces));
                let kind = HeaderValue::from_static("application/jsonl");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                let accepted = Some(HeaderValue::from_static(accept));
                let response = apply(accepted, response).await;
                assert_eq!(response.headers()[header::CONTENT_ENCODING], accept);
                assert!(response.into_body().collect().await.is_ok());
            }
        }
    }
}
