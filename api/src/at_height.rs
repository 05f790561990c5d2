//! How new an answer is, for clients of several nodes behind one balancer.
//!
//! Every answer says in `X-Tip-Height` how far the index had come when the question was
//! taken up: what is answered is that new or newer. A client that has seen a height asks with
//! `X-Min-Height: N` or `?min_height=N` for nothing older; a node that is behind waits
//! [`PATIENCE`] for the block and then refuses, so that the balancer or the client asks
//! another one.
//!
//! An answer of another server ([`crate::fallback`]) has the height that this one tells, or
//! none: ours says nothing of it. While this node is not synced, that server is asked at once
//! for what has to be newer than the index.
//!
//! # Limits
//! A request that waits is one of those that are being answered. With [`MOST_WAITING`] of them,
//! further ones are refused at once, so that they cannot take all places.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Uri},
    middleware::Next,
    response::{IntoResponse, Response},
};
use pulse_primitives::{Height, status::Readiness, tip::ChainTip};
use pulse_request::RequestError;
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::{
    fallback, ops,
    rest::{self, Question, error::RestError},
    state::ApiState,
};

/// How far the index had come.
pub(crate) const TIP_HEIGHT: HeaderName = HeaderName::from_static("x-tip-height");
/// How far it has to be for the client.
const MIN_HEIGHT: HeaderName = HeaderName::from_static("x-min-height");
/// Its name as a parameter.
const MIN_HEIGHT_PARAM: &str = "min_height";
/// How long a request waits for a block.
const PATIENCE: Duration = Duration::from_secs(3);

/// Requests that wait for a block at the same time.
pub(crate) const MOST_WAITING: usize = 512;

/// The tip of the index.
type Tips = watch::Receiver<Option<ChainTip>>;

/// Waits for the height that the client asks for, and says which one there is.
pub(crate) async fn layer(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let mut tips = state.query().tip_watch();
    let reached = match wanted(request.headers(), request.uri()) {
        Ok(Some(wanted)) => {
            if !is_reached(wanted, *tips.borrow())
                && let Some(response) = elsewhere(&state, Question::of_request(&request)).await
            {
                return response;
            }
            wait_for(wanted, &mut tips, state.waiting()).await
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error.into()),
    };
    let tip = *tips.borrow();
    let mut response = match reached {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    if let Some(tip) = tip
        && !response.headers().contains_key(fallback::SOURCE)
    {
        let height = HeaderValue::from(tip.height);
        response.headers_mut().insert(TIP_HEIGHT, height);
    }
    response
}

/// The answer of another server, if this node is not synced and may ask one.
async fn elsewhere(state: &ApiState, question: Question<'_>) -> Option<Response> {
    state.fallback()?;
    match ops::readiness(state) {
        Readiness::Synced => None,
        Readiness::NotSynced { .. } => rest::elsewhere(state, question).await,
    }
}

fn is_reached(wanted: Height, tip: Option<ChainTip>) -> bool {
    tip.is_some_and(|tip| tip.height >= wanted)
}

async fn wait_for(wanted: Height, tips: &mut Tips, waiting: &Semaphore) -> Result<(), RestError> {
    let is_there = |tip: &Option<ChainTip>| is_reached(wanted, *tip);
    if is_there(&tips.borrow()) {
        return Ok(());
    }
    // The index ends before the listener does; there is no more to wait for then.
    if let Ok(_place) = waiting.try_acquire()
        && let Ok(Ok(_)) = timeout(PATIENCE, tips.wait_for(is_there)).await
    {
        return Ok(());
    }
    let reason = match *tips.borrow() {
        Some(tip) => format!("its tip is at height {}, below {wanted}", tip.height),
        None => "the index is empty".to_owned(),
    };
    Err(RestError::NotSynced { reason })
}

/// The least height that the client takes; the header counts before the parameter.
///
/// # Errors
/// [`RequestError::InvalidNumber`].
pub(crate) fn wanted(headers: &HeaderMap, uri: &Uri) -> Result<Option<Height>, RequestError> {
    let parse = |text: &str| text.parse().map_err(|_| RequestError::InvalidNumber);
    if let Some(header) = headers.get(MIN_HEIGHT) {
        let text = header.to_str().map_err(|_| RequestError::InvalidNumber)?;
        return parse(text).map(Some);
    }
    let query = uri.query().unwrap_or_default();
    if !query.contains(MIN_HEIGHT_PARAM) {
        return Ok(None);
    }
    form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == MIN_HEIGHT_PARAM)
        .map(|(_, value)| parse(&value))
        .transpose()
}

/// Whether a query asks for a height and for nothing else.
pub(crate) fn is_all_of(query: &str) -> bool {
    let height = query.strip_prefix(MIN_HEIGHT_PARAM);
    let height = height.and_then(|rest| rest.strip_prefix('='));
    height.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn asked(path: &str, header: Option<&str>) -> Result<Option<Height>, String> {
        let mut request = Request::get(path);
        if let Some(text) = header {
            request = request.header(MIN_HEIGHT, text);
        }
        let request = request.body(Body::empty()).unwrap();
        wanted(request.headers(), request.uri()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_height_is_asked_for_by_header_or_parameter_and_nonsense_is_refused() {
        assert_eq!(asked("/fee-estimates", None), Ok(None));
        assert_eq!(asked("/a?min_height=7", None), Ok(Some(7)));
        assert_eq!(asked("/a?x=1&min_height=7", Some("9")), Ok(Some(9)));
        assert_eq!(asked("/a?not_min_height=x", None), Ok(None));
        for (path, header) in [("/a?min_height=x", None), ("/a", Some("-1"))] {
            assert_eq!(asked(path, header), Err("Invalid number".to_owned()));
        }
    }

    #[tokio::test]
    async fn one_too_many_does_not_wait() {
        let (_tip, mut tips) = watch::channel(None);
        let no_place = Semaphore::new(0);
        let refused = timeout(PATIENCE / 2, wait_for(7, &mut tips, &no_place)).await;
        let error = refused.expect("at once").unwrap_err().to_string();
        assert_eq!(error, "node is not synced yet: the index is empty");
    }

    #[test]
    fn a_query_for_a_height_alone_is_told_from_others() {
        assert!(is_all_of("min_height=7"));
        for query in ["", "min_height", "min_height=7&a=b", "a=b", "min_height=x"] {
            assert!(!is_all_of(query), "{query}");
        }
    }
}
