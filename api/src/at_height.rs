//! How new an answer is, for clients of several nodes behind one balancer.
//!
//! Every answer says in `X-Tip-Height` how far the index had come when the question was
//! taken up: what is answered is that new or newer. A client that has seen a height asks with
//! `X-Min-Height: N` or `?min_height=N` for nothing older; a node that is behind waits
//! [`PATIENCE`] for the block and then refuses, so that the balancer or the client asks
//! another one.
//!
//! # Limits
//! A request that waits holds its connection and nothing else.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::{IntoResponse, Response},
};
use pulse_primitives::{Height, tip::ChainTip};
use pulse_request::RequestError;
use tokio::{sync::watch, time::timeout};

use crate::{rest::error::RestError, state::ApiState};

/// How far the index had come.
pub(crate) const TIP_HEIGHT: HeaderName = HeaderName::from_static("x-tip-height");
/// How far it has to be for the client.
const MIN_HEIGHT: HeaderName = HeaderName::from_static("x-min-height");
/// Its name as a parameter.
const MIN_HEIGHT_PARAM: &str = "min_height";
/// How long a request waits for a block.
const PATIENCE: Duration = Duration::from_secs(3);

/// The tip of the index.
type Tips = watch::Receiver<Option<ChainTip>>;

/// Waits for the height that the client asks for, and says which one there is.
pub(crate) async fn layer(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let mut tips = state.query().tip_watch();
    let waited = match wanted(&request) {
        Ok(Some(wanted)) => wait_for(wanted, &mut tips).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error.into()),
    };
    let tip = *tips.borrow();
    let mut response = match waited {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    if let Some(tip) = tip {
        let height = HeaderValue::from(tip.height);
        response.headers_mut().insert(TIP_HEIGHT, height);
    }
    response
}

async fn wait_for(wanted: Height, tips: &mut Tips) -> Result<(), RestError> {
    let is_there = |tip: &Option<ChainTip>| tip.is_some_and(|tip| tip.height >= wanted);
    // The index ends before the listener does; there is no more to wait for then.
    if let Ok(Ok(_)) = timeout(PATIENCE, tips.wait_for(is_there)).await {
        return Ok(());
    }
    let reason = match *tips.borrow() {
        Some(tip) => format!("its tip is at height {}, below {wanted}", tip.height),
        None => "the index is empty".to_owned(),
    };
    Err(RestError::NotSynced { reason })
}

/// The least height that the client takes; the header counts before the parameter.
fn wanted(request: &Request) -> Result<Option<Height>, RequestError> {
    let parse = |text: &str| text.parse().map_err(|_| RequestError::InvalidNumber);
    if let Some(header) = request.headers().get(MIN_HEIGHT) {
        let text = header.to_str().map_err(|_| RequestError::InvalidNumber)?;
        return parse(text).map(Some);
    }
    let query = request.uri().query().unwrap_or_default();
    if !query.contains(MIN_HEIGHT_PARAM) {
        return Ok(None);
    }
    form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == MIN_HEIGHT_PARAM)
        .map(|(_, value)| parse(&value))
        .transpose()
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
        wanted(&request).map_err(|error| error.to_string())
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
}
