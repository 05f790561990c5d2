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
use pulse_indexer::query::{BalancePlace, Cursor};
use serde::Serialize;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tracing::debug;

use super::{
    error::RestError,
    params,
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
    next: Option<String>,
    /// What was not sent yet.
    bytes: Vec<u8>,
    /// Bytes that were sent.
    sent: usize,
    end: &'static [u8],
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
            next: next.as_ref().map(params::cursor_text),
            bytes: vec![b'['],
            sent: 0,
            end: b"]",
            is_empty: true,
            pieces: None,
            complete: Arc::default(),
        }
    }

    /// An empty list of balances.
    pub(super) fn from_place(outlet: Outlet, cache: Cache, next: Option<BalancePlace>) -> Self {
        let mut list = Self::new(outlet, cache, None);
        list.next = next.as_ref().map(params::balance_place_text);
        list
    }

    /// The list as the last member of an object: those of `head`, then it under `key`.
    pub(super) fn within(
        outlet: Outlet,
        cache: Cache,
        next: Option<Cursor>,
        head: &impl Serialize,
        key: &'static str,
    ) -> Self {
        let mut list = Self::new(outlet, cache, next);
        list.bytes.clear();
        list.open(head, key);
        list.end = b"]}";
        list
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// [`RestError::QueryTimeout`] if the client does not take what was made before.
    pub(super) fn push(&mut self, entry: &impl Serialize) -> Result<(), RestError> {
        self.put(entry);
        self.send_if_long()
    }

    /// Begins an entry that is an object: the members of `head`, and last a list under `key`,
    /// to which entries are added until [`List::close`]. Lists are not nested deeper.
    pub(super) fn open(&mut self, head: &impl Serialize, key: &'static str) {
        self.put(head);
        debug_assert_eq!(self.bytes.last(), Some(&b'}'));
        self.bytes.pop();
        if self.bytes.last() != Some(&b'{') {
            self.bytes.push(b',');
        }
        self.bytes.extend_from_slice(b"\"");
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(b"\":[");
        self.is_empty = true;
    }

    /// Ends the entry that was begun last.
    ///
    /// # Errors
    /// As [`List::push`].
    pub(super) fn close(&mut self) -> Result<(), RestError> {
        self.bytes.extend_from_slice(b"]}");
        self.is_empty = false;
        self.send_if_long()
    }

    /// Bytes that it has so far.
    pub(super) fn len(&self) -> usize {
        self.sent + self.bytes.len()
    }

    /// Whether making it is still worth the while, for work that goes on long between two
    /// entries that are sent.
    ///
    /// # Errors
    /// [`RestError::QueryTimeout`] after the deadline, and when the client has left.
    pub(super) fn in_time(&self) -> Result<(), RestError> {
        let is_over = match (&self.outlet, &self.pieces) {
            (Some(outlet), _) => outlet.is_over(),
            (None, Some(pieces)) => pieces.is_closed() || Instant::now() >= self.deadline,
            (None, None) => true,
        };
        match is_over {
            true => Err(RestError::QueryTimeout),
            false => Ok(()),
        }
    }

    fn put(&mut self, entry: &impl Serialize) {
        if !self.is_empty {
            self.bytes.push(b',');
        }
        self.is_empty = false;
        serde_json::to_writer(&mut self.bytes, entry)
            .expect("the models have string keys and no I/O");
    }

    fn send_if_long(&mut self) -> Result<(), RestError> {
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
        self.bytes.extend_from_slice(self.end);
        if self.pieces.is_some() {
            self.send()?;
            self.complete.store(true, Ordering::Release);
        }
        // Nobody looks at it if the answer has begun.
        let rest = Body::from(std::mem::take(&mut self.bytes));
        Ok(Reply::list(rest, self.cache, self.next.take()))
    }

    fn send(&mut self) -> Result<(), RestError> {
        if let Some(outlet) = self.outlet.take() {
            let (pieces, waiting) = mpsc::channel(PIECES);
            let body = Body::new(Streamed {
                pieces: waiting,
                complete: Some(Arc::clone(&self.complete)),
            });
            let reply = Reply::list(body, self.cache, self.next.take());
            let taken = outlet.result.send(Ok(reply));
            taken.map_err(|_| RestError::QueryTimeout)?;
            self.pieces = Some(pieces);
        }
        let Some(pieces) = &self.pieces else {
            return Err(RestError::QueryTimeout);
        };
        self.sent += self.bytes.len();
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
    async fn entries_can_have_lists_of_their_own() {
        #[derive(Serialize)]
        struct Head {
            #[serde(skip_serializing_if = "Option::is_none")]
            name: Option<&'static str>,
        }
        for (inner, long) in [(2, false), (200_000, true)] {
            let made = move |outlet| {
                let mut list = List::new(outlet, Cache::Short, None);
                list.open(&Head { name: Some("a") }, "numbers");
                for number in 0..inner {
                    list.push(&number)?;
                }
                list.close()?;
                list.open(&Head { name: None }, "numbers");
                list.close()?;
                list.push(&7)?;
                list.in_time()?;
                list.finish()
            };
            let reply = blocking(Duration::from_secs(20)).run_long(made).await;
            let body = reply.unwrap().unwrap().into_response().into_body();
            assert_eq!(body.size_hint().exact().is_none(), long);
            let bytes = body.collect().await.unwrap().to_bytes();
            let read: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            let numbers: Vec<u32> = (0..inner).collect();
            let want = serde_json::json!([{"name": "a", "numbers": numbers}, {"numbers": []}, 7]);
            assert!(read == want);
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
