//! From bytes to requests and back: lines over TCP and TLS, frames over WebSocket.
//!
//! # Security
//! A request that is too long is never held in memory: its bytes are dropped as they
//! arrive, and it is reported once.

use std::{future::Future, io, time::Duration};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};

/// Bytes that are read at a time.
const READ_BYTES: usize = 4 << 10;
/// Bytes that are written at a time, of which a client must take some within the time-out.
const WRITE_BYTES: usize = 64 << 10;

/// What came from a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A request or a batch.
    Text(Vec<u8>),
    /// One above the limit, which is dropped.
    TooLong,
    /// The client has ended.
    Closed,
}

/// A connection that carries requests and answers.
pub(super) trait Transport: Send {
    /// The next request. May be dropped while it waits; nothing is lost.
    fn receive(&mut self) -> impl Future<Output = io::Result<Incoming>> + Send;
    /// Sends an answer or a notification.
    fn send(&mut self, text: String) -> impl Future<Output = io::Result<()>> + Send;
    /// Says good-bye.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

/// One JSON per line.
pub(super) struct Lines<S> {
    stream: S,
    buffer: Vec<u8>,
    /// Bytes of the buffer that hold no line's end.
    scanned: usize,
    /// Whether the line that arrives is dropped.
    skips: bool,
    max_bytes: usize,
    write_timeout: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Lines<S> {
    /// Lines of at most `max_bytes`. A client that takes nothing for `write_timeout` is an
    /// error.
    pub(super) fn new(stream: S, max_bytes: usize, write_timeout: Duration) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            scanned: 0,
            skips: false,
            max_bytes,
            write_timeout,
        }
    }

    /// The next line in the buffer, if there is a whole one.
    fn next_line(&mut self) -> Option<Incoming> {
        loop {
            let unseen = &self.buffer[self.scanned..];
            let Some(end) = unseen.iter().position(|byte| *byte == b'\n') else {
                self.scanned = self.buffer.len();
                if self.buffer.len() <= self.max_bytes {
                    return None;
                }
                self.buffer = Vec::new();
                self.scanned = 0;
                let is_news = !self.skips;
                self.skips = true;
                return is_news.then_some(Incoming::TooLong);
            };
            let end = self.scanned + end;
            let rest = self.buffer.split_off(end + 1);
            let mut line = std::mem::replace(&mut self.buffer, rest);
            self.scanned = 0;
            if std::mem::take(&mut self.skips) {
                continue;
            }
            line.truncate(end);
            if line.len() > self.max_bytes {
                return Some(Incoming::TooLong);
            }
            if !line.trim_ascii().is_empty() {
                return Some(Incoming::Text(line));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Transport for Lines<S> {
    async fn receive(&mut self) -> io::Result<Incoming> {
        loop {
            if let Some(incoming) = self.next_line() {
                return Ok(incoming);
            }
            if self.buffer.is_empty() {
                // An idle client keeps no memory: small reads, then as much as needed.
                self.buffer = Vec::with_capacity(READ_BYTES);
            } else {
                self.buffer.reserve(READ_BYTES);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(Incoming::Closed);
            }
        }
    }

    async fn send(&mut self, mut text: String) -> io::Result<()> {
        text.push('\n');
        for part in text.as_bytes().chunks(WRITE_BYTES) {
            timeout(self.write_timeout, self.stream.write_all(part)).await??;
        }
        timeout(self.write_timeout, self.stream.flush()).await?
    }

    async fn close(&mut self) {
        // There is nobody to tell if this fails.
        let _ = timeout(self.write_timeout, self.stream.shutdown()).await;
    }
}

/// One JSON per WebSocket message.
pub(super) struct Frames<S> {
    stream: WebSocketStream<S>,
    max_bytes: usize,
    write_timeout: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Frames<S> {
    /// Answers the handshake of a WebSocket. Limits as for [`Lines::new`].
    ///
    /// # Errors
    /// What was wrong with the handshake.
    pub(super) async fn accept(
        stream: S,
        max_bytes: usize,
        write_timeout: Duration,
    ) -> Result<Self, tungstenite::Error> {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            // Somewhat more can be reported as too long instead of ending the connection.
            .max_message_size(Some(2 * max_bytes))
            .max_frame_size(Some(2 * max_bytes));
        let stream = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?;
        Ok(Self {
            stream,
            max_bytes,
            write_timeout,
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Transport for Frames<S> {
    async fn receive(&mut self) -> io::Result<Incoming> {
        loop {
            let bytes = match self.stream.next().await {
                None | Some(Ok(Message::Close(_))) => return Ok(Incoming::Closed),
                Some(Err(err)) => return Err(io::Error::other(err)),
                Some(Ok(Message::Text(text))) => text.as_bytes().to_vec(),
                Some(Ok(Message::Binary(bytes))) => bytes.to_vec(),
                // Pings are answered by the library.
                Some(Ok(_)) => continue,
            };
            return Ok(match bytes.len() > self.max_bytes {
                true => Incoming::TooLong,
                false => Incoming::Text(bytes),
            });
        }
    }

    async fn send(&mut self, text: String) -> io::Result<()> {
        let sent = timeout(self.write_timeout, self.stream.send(Message::text(text)));
        sent.await?.map_err(io::Error::other)
    }

    async fn close(&mut self) {
        let _ = timeout(self.write_timeout, self.stream.close(None)).await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn lines(parts: Vec<Vec<u8>>, max_bytes: usize) -> Vec<Incoming> {
        let (mut client, server) = tokio::io::duplex(16);
        let mut lines = Lines::new(server, max_bytes, Duration::from_secs(5));
        let writer = tokio::spawn(async move {
            for part in parts {
                client.write_all(&part).await.unwrap();
            }
        });
        let mut all = Vec::new();
        loop {
            match lines.receive().await.unwrap() {
                Incoming::Closed => break,
                incoming => all.push(incoming),
            }
        }
        writer.await.unwrap();
        all
    }

    fn text(line: &str) -> Incoming {
        Incoming::Text(line.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn lines_arrive_however_they_are_cut() {
        let found = lines(vec![b"ab\n\n  \ncd   \r\nef".to_vec()], 100).await;
        assert_eq!(found, [text("ab"), text("cd   \r")]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_reported_once_and_dropped() {
        let mut bytes = b"ab\n".to_vec();
        bytes.extend([b'x'; 500]);
        bytes.extend(b"\ncd\n");
        let found = lines(vec![bytes], 20).await;
        assert_eq!(found, [text("ab"), Incoming::TooLong, text("cd")]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_in_any_parts_give_the_same_lines(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            cuts in prop::collection::vec(1_usize..20, 1..40),
        ) {
            let mut parts = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                parts.push(part.to_vec());
                rest = after;
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            let whole = runtime.block_on(lines(vec![bytes.clone()], 1_000));
            let found = runtime.block_on(lines(parts, 1_000));
            prop_assert_eq!(&found, &whole);
            let ended = bytes.rsplit_once_line();
            let expected: Vec<Incoming> = ended
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.trim_ascii().is_empty())
                .map(|line| Incoming::Text(line.to_vec()))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }

    trait Ended {
        /// Everything up to the last line's end.
        fn rsplit_once_line(&self) -> &[u8];
    }

    impl Ended for Vec<u8> {
        fn rsplit_once_line(&self) -> &[u8] {
            let end = self.iter().rposition(|byte| *byte == b'\n');
            &self[..end.unwrap_or(0)]
        }
    }
}
