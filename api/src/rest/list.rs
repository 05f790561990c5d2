//! Lists in JSON, sent while they are made once they are long; and blocks as bytes.
//!
//! # Limits
//! A list that fits into [`WHOLE`] bytes is sent as one. Of a longer one some pieces are in
//! memory at a time: its maker waits for the client to take them, until the deadline, when
//! both the snapshot of the index and the slot of the query are given back. The client then
//! sees that the answer was cut off, because its transfer does not end as it should. What is
//! long and known as a whole ([`send_bytes`]) is in memory once for each slot at most,
//! however many clients take it slowly.

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
use hyper::body::{Frame, SizeHint};
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
    pieces: Option<Pieces>,
}

/// An answer that has begun.
struct Pieces {
    sender: mpsc::Sender<Bytes>,
    deadline: Instant,
    complete: Arc<AtomicBool>,
}

impl Pieces {
    /// Where pieces go in, and the body that they come out of, of a length if it is known.
    fn new(deadline: Instant, len: Option<u64>) -> (Self, Body) {
        let (sender, pieces) = mpsc::channel(PIECES);
        let complete = Arc::<AtomicBool>::default();
        let body = Body::new(Streamed {
            pieces,
            left: len,
            complete: Some(Arc::clone(&complete)),
        });
        let pieces = Self {
            sender,
            deadline,
            complete,
        };
        (pieces, body)
    }

    fn send(&self, piece: Bytes) -> Result<(), RestError> {
        let sent = Handle::current().block_on(timeout_at(self.deadline, self.sender.send(piece)));
        match sent {
            Ok(Ok(())) => Ok(()),
            _ => Err(RestError::QueryTimeout),
        }
    }

    /// To be called behind the last piece: the answer was not cut off.
    fn finish(&self) {
        self.complete.store(true, Ordering::Release);
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if !self.complete.load(Ordering::Acquire) {
            debug!("an answer was cut off");
        }
    }
}

/// Sends bytes that may be many, in pieces that are not copied. The caller keeps its slot
/// until the client has taken them, or the deadline is over.
///
/// # Errors
/// As [`List::push`].
pub(super) fn send_bytes(outlet: Outlet, bytes: Vec<u8>, cache: Cache) -> Result<Reply, RestError> {
    if bytes.len() < WHOLE {
        return Ok(Reply::binary(bytes, cache));
    }
    let (pieces, body) = Pieces::new(outlet.deadline, Some(bytes.len() as u64));
    let begun = (outlet.result).send(Ok(Reply::binary_parts(body, &bytes, cache)));
    begun.map_err(|_| RestError::QueryTimeout)?;
    let mut bytes = Bytes::from(bytes);
    while !bytes.is_empty() {
        pieces.send(bytes.split_to(PIECE.min(bytes.len())))?;
    }
    pieces.finish();
    // Nobody looks at it, since the answer has begun.
    Ok(Reply::binary(Vec::new(), cache))
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
            (None, Some(pieces)) => pieces.sender.is_closed() || Instant::now() >= self.deadline,
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
        if self.pieces.is_none() && self.next.is_none() {
            let whole = std::mem::take(&mut self.bytes);
            return Ok(Reply::whole_list(whole, self.cache));
        }
        if self.pieces.is_some() {
            self.send()?;
        }
        if let Some(pieces) = &self.pieces {
            pieces.finish();
        }
        // Nobody looks at it if the answer has begun.
        let rest = Body::from(std::mem::take(&mut self.bytes));
        Ok(Reply::list(rest, self.cache, self.next.take()))
    }

    fn send(&mut self) -> Result<(), RestError> {
        if let Some(outlet) = self.outlet.take() {
            let (pieces, body) = Pieces::new(self.deadline, None);
            let reply = Reply::list(body, self.cache, self.next.take());
            let taken = outlet.result.send(Ok(reply));
            taken.map_err(|_| RestError::QueryTimeout)?;
            self.pieces = Some(pieces);
        }
        let Some(pieces) = &self.pieces else {
            return Err(RestError::QueryTimeout);
        };
        self.sent += self.bytes.len();
        pieces.send(Bytes::from(std::mem::take(&mut self.bytes)))
    }
}

/// The pieces as a body. Without the last one it ends with an error.
struct Streamed {
    pieces: mpsc::Receiver<Bytes>,
    /// Bytes that follow, if their number was known from the start.
    left: Option<u64>,
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
            self.left = self
                .left
                .map(|left| left.saturating_sub(piece.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let cut_off = (self.complete.take()).is_some_and(|done| !done.load(Ordering::Acquire));
        Poll::Ready(cut_off.then(|| Err(io::Error::other("the answer was cut off"))))
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
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
    async fn long_bytes_come_in_pieces_and_with_their_length() {
        let blocking = blocking(Duration::from_secs(20));
        for len in [0, 1_000, WHOLE, 1_000_000] {
            let bytes: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0]).collect();
            let sent = bytes.clone();
            let reply = blocking
                .run_long(move |outlet| send_bytes(outlet, sent, Cache::Long))
                .await;
            let body = reply.unwrap().unwrap().into_response().into_body();
            assert_eq!(body.size_hint().exact(), Some(len as u64));
            assert_eq!(body.collect().await.unwrap().to_bytes(), bytes);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn bytes_that_a_client_does_not_take_are_given_back() {
        let blocking = blocking(Duration::from_millis(300));
        let reply = blocking
            .run_long(|outlet| send_bytes(outlet, vec![7; 4_000_000], Cache::Long))
            .await;
        let body = reply.unwrap().unwrap().into_response().into_body();
        // The one slot is free again though nothing was taken.
        assert_eq!(blocking.run(|| 7).await, Ok(7));
        assert!(body.collect().await.is_err());
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
