//! What every request passes, whatever its route.
//!
//! measure, trace, compress, log -> CORS and OPTIONS -> panic to 500 -> keys and rates -> admit, bound the body -> route
//!
//! Each step is a function that calls the next one. As layers of the router each of them would
//! be copied for every request, together with all behind it.

use std::{
    any::Any, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration, time::Instant,
};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tower::ServiceExt;
use tracing::Instrument;

use crate::{
    access::{self, Access},
    access_log::{self, Line},
    compress,
    config::{ApiConfig, CorsOrigin},
    metrics,
    places::Refused,
    rest::error::RestError,
    server::Client,
    trace,
};

/// Most bytes that a request body may have.
const BODY_LIMIT_BYTES: u64 = 1_000_000;
/// Longest request body that is refused only once it has been read, and thrown away.
const DRAINED_BYTES: u64 = 4_000_000;
/// Most KiB of request bodies that are in memory at the same time.
const BODIES_LIMIT_KIB: usize = 64 << 10;
/// Time in which a request body must arrive before the node is open.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Template of the route that answered, as an extension of the response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteTemplate(pub(crate) &'static str);

/// Limits of the requests of one listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestLimits {
    /// Requests that may be answered at the same time.
    pub(crate) max_requests: usize,
    /// Time in which a request body must arrive.
    pub(crate) body_timeout: Duration,
}

impl From<&ApiConfig> for RequestLimits {
    fn from(config: &ApiConfig) -> Self {
        Self {
            max_requests: config.max_requests.get(),
            body_timeout: Duration::from_secs(config.body_timeout_secs.get()),
        }
    }
}

/// `router` behind all steps, with up to `max_requests` at a time.
pub(crate) fn wrap(router: Router, cors: CorsOrigin, max_requests: usize) -> Router {
    let limits = RequestLimits {
        max_requests,
        body_timeout: BODY_TIMEOUT,
    };
    wrap_for(router, cors, limits, Arc::new(Access::open()), false)
}

/// The same for clients that `access` admits; with a line in the log for each answer if `log`.
pub(crate) fn wrap_for(
    router: Router,
    cors: CorsOrigin,
    limits: RequestLimits,
    access: Arc<Access>,
    log: bool,
) -> Router {
    let steps = Arc::new(Steps {
        log,
        cors,
        access,
        requests: Semaphore::new(limits.max_requests),
        memory: Arc::new(Semaphore::new(BODIES_LIMIT_KIB)),
        body_timeout: limits.body_timeout,
        router,
    });
    let first = move |request: Request| {
        let steps = Arc::clone(&steps);
        async move { steps.measure(request).await }
    };
    // Without the state the handler would be made anew for each request.
    Router::new().fallback(first).with_state(())
}

/// What all requests of a listener share. The methods stand in the order of the steps.
struct Steps {
    /// Whether each answer is a line of the log.
    log: bool,
    cors: CorsOrigin,
    access: Arc<Access>,
    /// Requests that may be answered at the same time.
    requests: Semaphore,
    /// KiB for request bodies.
    memory: Arc<Semaphore>,
    /// Time in which a request body must arrive.
    body_timeout: Duration,
    router: Router,
}

impl Steps {
    async fn measure(&self, request: Request) -> Response {
        let _open = metrics::Open::request();
        let started = Instant::now();
        let method = access_log::method_name(request.method());
        let span = trace::request(method);
        let accepted = compress::accepted(request.headers());
        let response = self.cross_origin(request).instrument(span.clone()).await;
        let route = match response.extensions().get::<RouteTemplate>() {
            Some(template) => template.0,
            None => "none",
        };
        metrics::request(route, response.status(), started.elapsed());
        trace::answered(&span, route, response.status());
        let response = compress::apply(accepted, response).await;
        if !self.log {
            return response;
        }
        let line = Line {
            method,
            route,
            started,
        };
        access_log::follow(response, line)
    }

    /// Answers OPTIONS, and lets web pages of other origins read every answer, errors
    /// included.
    async fn cross_origin(&self, request: Request) -> Response {
        let preflight = request.method() == Method::OPTIONS;
        let mut response = if preflight {
            let mut response = StatusCode::NO_CONTENT.into_response();
            let methods = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");
            response.headers_mut().insert(header::ALLOW, methods);
            response
        } else {
            whole(self.admit_client(request)).await
        };
        if let Some(origin) = self.cors.header() {
            let headers = response.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static(
                    "etag, retry-after, x-indexed-height, x-next-cursor, x-pulse-source, x-tip-height",
                ),
            );
            if preflight {
                for (name, value) in [
                    (
                        header::ACCESS_CONTROL_ALLOW_METHODS,
                        "GET, HEAD, POST, OPTIONS",
                    ),
                    (header::ACCESS_CONTROL_ALLOW_HEADERS, "*"),
                    (header::ACCESS_CONTROL_MAX_AGE, "86400"),
                ] {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
        }
        response
    }

    /// Lets a request in whose client may ask.
    async fn admit_client(&self, mut request: Request) -> Response {
        match access::admit(&self.access, &mut request) {
            Ok(()) => self.admit_request(request).await,
            Err(error) => error.into_response(),
        }
    }

    /// Lets a request in that comes within the limits of its listener and of its address. Monitors
    /// are answered on any connection, and however many requests there are: the node is not ill because its clients are many.
    async fn admit_request(&self, request: Request) -> Response {
        if access::is_monitor(request.uri().path()) {
            return self.bound_body(request).await;
        }
        let client = request.extensions().get::<Client>();
        if let Some(refused) = client.and_then(|client| client.refused) {
            let (error, limit) = match refused {
                Refused::Full => (RestError::Busy, "listener"),
                Refused::OverShare => (RestError::TooManyConnections, "address"),
            };
            metrics::connection_refused(limit);
            return error.into_response();
        }
        let Ok(_slot) = self.requests.try_acquire() else {
            return RestError::Busy.into_response();
        };
        self.bound_body(request).await
    }

    /// Reads the body to its end within [`BODY_LIMIT_BYTES`] and the time for it. That of a
    /// POST is kept in memory until it is answered, within [`BODIES_LIMIT_KIB`] together with
    /// all others; no other method has a use for one.
    async fn bound_body(&self, request: Request) -> Response {
        let keep = request.method() == Method::POST;
        let (parts, body) = request.into_parts();
        if body.is_end_stream() {
            return self.route(Request::from_parts(parts, body)).await;
        }
        let mut kept = Kept {
            bytes: Vec::new(),
            memory: keep.then(|| Arc::clone(&self.memory)),
            taken: None,
        };
        let read = timeout(self.body_timeout, kept.read(body)).await;
        if let Err(error) = read.unwrap_or(Err(RestError::BodyTimeout)) {
            return error.into_response();
        }
        let body = Body::from(std::mem::take(&mut kept.bytes));
        let response = self.route(Request::from_parts(parts, body)).await;
        drop(kept.taken);
        response
    }

    /// The whole answer, also to HEAD, which the router of [`wrap_for`] cuts off when all that
    /// depends on its body has been said.
    async fn route(&self, mut request: Request) -> Response {
        if request.method() == Method::HEAD {
            *request.method_mut() = Method::GET;
        }
        let Ok(response) = self.router.clone().oneshot(request).await;
        response
    }
}

/// What `answer` comes to, or 500 if it panics.
async fn whole(answer: impl Future<Output = Response>) -> Response {
    // What it touches is dropped with it, or behind locks that do not break.
    let answer = AssertUnwindSafe(answer).catch_unwind().await;
    answer.unwrap_or_else(|panic| panicked(&panic))
}

fn panicked(_panic: &(dyn Any + Send + 'static)) -> Response {
    metrics::handler_panicked();
    RestError::Internal.into_response()
}

/// A body that is being read.
struct Kept {
    bytes: Vec<u8>,
    /// What the bytes count against; `None` if they are thrown away.
    memory: Option<Arc<Semaphore>>,
    taken: Option<OwnedSemaphorePermit>,
}

impl Kept {
    async fn read(&mut self, mut body: Body) -> Result<(), RestError> {
        let mut left = BODY_LIMIT_BYTES;
        if let Some(len) = body.size_hint().exact()
            && len > left
        {
            // A client that is still sending when its connection ends does not read why.
            while len <= DRAINED_BYTES
                && let Some(Ok(_)) = body.frame().await
            {}
            return Err(RestError::BodyTooLarge);
        }
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(RestError::unreadable)?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            left = left
                .checked_sub(data.len() as u64)
                .ok_or(RestError::BodyTooLarge)?;
            self.keep(data)?;
        }
        Ok(())
    }

    fn keep(&mut self, data: &[u8]) -> Result<(), RestError> {
        let Some(memory) = &self.memory else {
            return Ok(());
        };
        let taken = self.taken.as_ref().map_or(0, |taken| taken.num_permits());
        let needed = (self.bytes.len() + data.len()).div_ceil(1024);
        let missing = u32::try_from(needed - taken.min(needed)).unwrap_or(u32::MAX);
        let more = Arc::clone(memory).try_acquire_many_owned(missing);
        let more = more.map_err(|_| RestError::Busy)?;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::routing::{any, get};
    use futures_util::stream;

    use super::*;

    async fn boom() -> &'static str {
        panic!("on purpose")
    }

    /// Of no known length.
    fn pieces() -> Body {
        Body::from_stream(stream::iter(["a", "b"].map(Ok::<_, Infallible>)))
    }

    fn router() -> Router {
        let inner = Router::new()
            .route("/ok", get(|| async { "ok" }))
            .route("/panic", get(boom))
            .route("/long", get(|| async { "7".repeat(5000) }))
            .route("/stream", get(|| async { pieces() }))
            .route(
                "/len",
                any(|body: String| async move { body.len().to_string() }),
            )
            .fallback(|| async { RestError::BlockNotFound });
        let cors = CorsOrigin::try_from("https://wallet.example".to_owned()).unwrap();
        wrap(inner, cors, 1024)
    }

    async fn call(method: Method, path: &str, body: Body) -> (StatusCode, String, Response<()>) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(body)
            .unwrap();
        let (parts, body) = router().oneshot(request).await.unwrap().into_parts();
        let text = body.collect().await.unwrap().to_bytes().to_vec();
        let status = parts.status;
        let text = String::from_utf8(text).unwrap();
        (status, text, Response::from_parts(parts, ()))
    }

    #[tokio::test]
    async fn a_panic_is_answered_with_500_and_cors() {
        let (status, text, response) = call(Method::GET, "/panic", Body::empty()).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(text, "Internal server error");
        assert_eq!(
            response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN],
            "https://wallet.example"
        );
    }

    #[tokio::test]
    async fn head_is_answered_like_get_without_the_body() {
        for path in ["/ok", "/long", "/stream", "/nowhere"] {
            for accepted in ["identity", "gzip"] {
                let ask = |method: Method| {
                    let request = Request::builder()
                        .method(method)
                        .uri(path)
                        .header(header::ACCEPT_ENCODING, accepted);
                    router().oneshot(request.body(Body::empty()).unwrap())
                };
                let (whole, head) = (ask(Method::GET).await, ask(Method::HEAD).await);
                let ((whole, _), (head, body)) =
                    (whole.unwrap().into_parts(), head.unwrap().into_parts());
                assert_eq!(head.status, whole.status, "{path}");
                assert_eq!(head.headers, whole.headers, "{path} {accepted}");
                assert!(body.collect().await.unwrap().to_bytes().is_empty());
            }
        }
    }

    #[tokio::test]
    async fn options_is_answered_for_any_path() {
        let (status, text, response) = call(Method::OPTIONS, "/txs/package", Body::empty()).await;
        assert_eq!((status, text.as_str()), (StatusCode::NO_CONTENT, ""));
        assert_eq!(
            response.headers()[header::ACCESS_CONTROL_ALLOW_METHODS],
            "GET, HEAD, POST, OPTIONS"
        );
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_and_one_within_it_is_not() {
        let limit = usize::try_from(BODY_LIMIT_BYTES).unwrap();
        let (status, text, _) = call(Method::POST, "/x", Body::from(vec![0; limit + 1])).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(text, "Request body too large");
        let (status, _, _) = call(Method::POST, "/x", Body::from(vec![0; limit])).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn only_the_body_of_a_post_reaches_its_handler() {
        for (method, len) in [
            (Method::POST, "5000"),
            (Method::GET, "0"),
            (Method::PUT, "0"),
        ] {
            let (_, text, _) = call(method, "/len", Body::from(vec![b'a'; 5000])).await;
            assert_eq!(text, len);
        }
    }

    #[test]
    fn bodies_share_a_bounded_memory_whatever_their_pieces() {
        let memory = Arc::new(Semaphore::new(3));
        let body = || Kept {
            bytes: Vec::new(),
            memory: Some(Arc::clone(&memory)),
            taken: None,
        };
        let (mut first, mut second) = (body(), body());
        for _ in 0..2048 {
            first.keep(&[0]).unwrap();
        }
        assert_eq!(memory.available_permits(), 1);
        assert!(matches!(second.keep(&[0; 1025]), Err(RestError::Busy)));
        drop(first);
        second.keep(&[0; 1025]).unwrap();
        assert_eq!(memory.available_permits(), 1);
    }
}
