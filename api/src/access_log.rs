//! A line of the log for each answer, if the operator wants them (`http.access_log`).
//!
//! # Security
//! Who asked and what for is left out: neither an address of a client, nor a path with its
//! parameters, nor anything else that a client wrote. Methods that no route has are one word.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{Method, StatusCode},
    response::Response,
};
use hyper::body::{Frame, SizeHint};
use tracing::info;

/// The method of a request, or one word for all that are not known.
pub(crate) fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "_OTHER",
    }
}

/// What is known of a request when its answer begins.
pub(crate) struct Line {
    pub(crate) method: &'static str,
    /// Template of the route, never a path.
    pub(crate) route: &'static str,
    pub(crate) started: Instant,
}

/// The same answer, whose end writes the line.
pub(crate) fn follow(response: Response, line: Line) -> Response {
    let status = response.status();
    response.map(|body| {
        Body::new(Followed {
            body,
            line,
            status,
            bytes: 0,
        })
    })
}

/// A body that counts its bytes until it has been sent, or its client is gone.
struct Followed {
    body: Body,
    line: Line,
    status: StatusCode,
    bytes: u64,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.bytes += data.len() as u64;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let Line {
            method,
            route,
            started,
        } = self.line;
        let (status, bytes) = (self.status.as_u16(), self.bytes);
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(method, route, status, bytes, elapsed_ms, "answered");
    }
}
