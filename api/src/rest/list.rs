//! Lists in JSON, sent while they are made once they are long.
//!
//! # Limits
//! A list that fits into [`WHOLE`] bytes is sent as one. Of a longer one some pieces are in
//! memory at a time: its maker waits for the client to take them, until the deadline, when
//! both the snapshot of the index and the slot of the query are given back. The client then
//! sees that the answer was cut off, because its transfer does not end as it should.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::Frame;
use pulse_indexer::query::Cursor;
use serde::Serialize;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tracing::debug;

use super::{
    error::RestError,
    reply::{Cache, Reply},
};
use crate::blocking::Early;

/// Longest list that is sent as a whole, in bytes.
const WHOLE: usize = 256 << 10;
/// Piece of a longer one, in bytes; an entry is never split.
const PIECE: usize = 64 << 10;
/// Pieces that wait for the client.
const PIECES: usize = 4;

/// For the work that makes a list.
pub(super) type Outlet = Early<Result<Reply, RestError>>;

/// A list that is being made.
pub(super) struct List {
    outlet: Option<Outlet>,
    deadline: Instant,
    cache: Cache,
    next: Option<Cursor>,
    /// What was not sent yet.
    bytes: Vec<u8>,
    is_empty: bool,
    /// Once the answer has begun.
    pieces: Option<mpsc::Sender<Bytes>>,
    complete: Arc<AtomicBool>,
}

impl List {
    /// An empty list. `next` is where the page after it begins.
    pub(super) fn new(outlet: Outlet, cache: Cache, next: Option<Cursor>) -> Self {
        Self {
            deadline: outlet.deadline,
            outlet: Some(outlet),
            cache,
            next,
            bytes: vec![b'['],
            is_empty: true,
            pieces: None,
            complete: Arc::default(),
        }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// [`RestError::QueryTimeout`] if the client does not take what was made before.
    pub(super) fn push(&mut self, entry: &impl Serialize) -> Result<(), RestError> {
        if !self.is_empty {
            self.bytes.push(b',');
        }
        self.is_empty = false;
        serde_json::to_writer(&mut self.bytes, entry)
            .expect("the models have string keys and no I/O");
        match self.bytes.len() >= if self.pieces.is_some() { PIECE } else { WHOLE } {
            true => self.send(),
            false => Ok(()),
        }
    }

    /// The whole list, or what remains of it to be sent.
    ///
    /// # Errors
    /// As [`List::push`].
    pub(super) fn finish(mut self) -> Result<Reply, RestError> {
        self.bytes.push(b']');
        if self.pieces.is_some() {
            self.send()?;
            self.complete.store(true, Ordering::Release);
        }
        // Nobody looks at it if the answer has begun.
        let rest = Body::from(std::mem::take(&mut self.bytes));
        Ok(Reply::list(rest, self.cache, self.next))
    }

    fn send(&mut self) -> Result<(), RestError> {
        if let Some(outlet) = self.outlet.take() {
            let (pieces, waiting) = mpsc::channel(PIECES);
            let body = Body::new(Streamed {
                pieces: waiting,
                complete: Some(Arc::clone(&self.complete)),
            });
            let reply = Reply::list(body, self.cache, self.next);
            let taken = outlet.result.send(Ok(reply));
            taken.map_err(|_| RestError::QueryTimeout)?;
            self.pieces = Some(pieces);
        }
        let Some(pieces) = &self.pieces else {
            return Err(RestError::QueryTimeout);
        };
        let piece = Bytes::from(std::mem::take(&mut self.bytes));
        let sent = Handle::current().block_on(timeout_at(self.deadline, pieces.send(piece)));
        match sent {
            Ok(Ok(())) => Ok(()),
            _ => Err(RestError::QueryTimeout),
        }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        if self.pieces.is_some() && !self.complete.load(Ordering::Acquire) {
            debug!("an answer was cut off");
        }
    }
}

/// The pieces as a body. Without the last one it ends with an error.
struct Streamed {
    pieces: mpsc::Receiver<Bytes>,
    /// `None` once the error was given.
    complete: Option<Arc<AtomicBool>>,
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(piece) = ready!(self.pieces.poll_recv(context)) {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let cut_off = (self.complete.take()).is_some_and(|done| !done.load(Ordering::Acquire));
        Poll::Ready(cut_off.then(|| Err(io::Error::other("the answer was cut off"))))
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroUsize, time::Duration};

    use axum::response::IntoResponse;
    use http_body_util::BodyExt;

    use super::*;
    use crate::blocking::Blocking;

    fn blocking(limit: Duration) -> Blocking {
        Blocking::new(NonZeroUsize::MIN, Duration::from_secs(5), limit)
    }

    fn numbers(outlet: Outlet, count: u32) -> Result<Reply, RestError> {
        let mut list = List::new(outlet, Cache::Short, None);
        for number in 0..count {
            list.push(&number)?;
        }
        list.finish()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_list_is_the_same_whole_or_in_pieces() {
        let blocking = blocking(Duration::from_secs(20));
        for count in [0, 1, 1_000, 500_000] {
            let reply = blocking
                .run_long(move |outlet| numbers(outlet, count))
                .await;
            let body = reply.unwrap().unwrap().into_response().into_body();
            assert_eq!(body.size_hint().exact().is_some(), count < 500_000);
            let bytes = body.collect().await.unwrap().to_bytes();
            let read: Vec<u32> = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(read, (0..count).collect::<Vec<_>>());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_takes_nothing_loses_its_slot_and_sees_that_it_was_cut_off() {
        let blocking = blocking(Duration::from_millis(300));
        let reply = blocking.run_long(|outlet| numbers(outlet, 5_000_000)).await;
        let body = reply.unwrap().unwrap().into_response().into_body();
        // The one slot is free again though nothing was taken.
        assert_eq!(blocking.run(|| 7).await, Ok(7));
        assert!(body.collect().await.is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_leaves_ends_the_work() {
        let blocking = blocking(Duration::from_secs(20));
        let reply = blocking.run_long(|outlet| numbers(outlet, u32::MAX)).await;
        drop(reply);
        assert_eq!(blocking.run(|| 7).await, Ok(7));
    }
}
