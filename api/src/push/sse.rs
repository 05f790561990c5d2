//! Server-Sent Events: one stream for what the query string names.
//!
//! session -> channel -> body of the answer
//!
//! # Limits
//! The channel holds [`QUEUED`] pieces of [`PIECE_BYTES`]; a client that leaves it full for
//! the write time-out is cut off. What it is told then is the last event of the stream.

use std::{convert::Infallible, fmt::Write, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, header, request::Parts},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use parking_lot::Mutex;
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};

use super::{
    PushState, answer, bad_request, describe_errors,
    message::Message,
    request::Wishes,
    session::{End, Incoming, Link, Session},
};
use crate::{
    metrics,
    rest::{error::RestError, openapi::Paths},
};

/// Pieces that wait for the client.
const QUEUED: usize = 2;
/// Bytes of events after which they are handed on.
const PIECE_BYTES: usize = 16 << 10;
/// What is sent first: milliseconds after which a browser comes back.
const RETRY: &str = "retry: 3000\n\n";
/// A sign of life, which clients ignore.
const PING: &str = ": ping\n\n";

/// Begins a stream.
pub(super) async fn stream(State(push): State<PushState>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    answer("/events", open(push, parts).await)
}

/// Describes the route.
pub(super) fn describe(paths: &mut Paths) {
    let operation = paths
        .own_get("/events", "A stream of events for what the query names")
        .about("Server-Sent Events, without an end. What each event is: docs/push.md.");
    for (name, description) in [
        (
            "channel",
            "Of the chain: `tips`, `blocks`, `reorgs` or `mempool`.",
        ),
        ("address", "States of its script."),
        ("scripthash", "The same by the SHA-256 of the script."),
        ("outpoint", "What spends it, as `txid:vout`."),
        ("txid", "Where the transaction is."),
    ] {
        // Each as often as wanted.
        let schema = json!({"type": "array", "items": {"type": "string"}});
        operation.query(name, description, &schema);
    }
    let last = "The id of the last event that a former stream gave, if no header says it.";
    operation
        .query("last_event_id", last, &json!({"type": "string"}))
        .response(
            200,
            json!({
                "description": "The stream.",
                "headers": {"Cache-Control": {"required": true, "schema": {"const": "no-store"}}},
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            }),
        );
    describe_errors(operation);
}

async fn open(push: PushState, request: Parts) -> Result<Response, Box<Response>> {
    let query = request.uri.query().unwrap_or_default();
    let network = push.0.api.params().network;
    let (wishes, last) =
        Wishes::of_query(query, network).map_err(|error| bad_request(error.to_string()))?;
    let limit = push.0.config.max_subscriptions;
    if wishes.names.len() > limit {
        metrics::push_refused("too_many_subscriptions");
        return Err(bad_request(format!("more than {limit} subscriptions")));
    }
    let from = request.extensions.get().copied();
    let admission = push.admit(&request.headers, from).await?;
    let part = admission.part.as_ref();
    if part.is_some_and(|part| !part.has_room(wishes.names.len())) {
        metrics::push_refused("address_subscriptions");
        return Err(Box::new(RestError::TooManySubscriptions.into_response()));
    }
    // A browser that comes back by itself has the header, one that is told to the key.
    let resume = request.headers.get("last-event-id");
    let resume = resume.and_then(|id| id.to_str().ok()).map(str::to_owned);
    let resume = resume.or(last);
    let (sender, receiver) = mpsc::channel(QUEUED);
    let last_words = Arc::<Mutex<Option<String>>>::default();
    let link = Events {
        sender,
        last_words: Arc::clone(&last_words),
        write_timeout: Duration::from_secs(push.0.config.write_timeout_secs.get()),
    };
    let session = Session::new(push.clone(), admission, request.extensions.get().cloned());
    push.0.tracker.spawn(async move {
        let _open = metrics::Open::push("sse");
        session.run(link, Some((wishes, resume))).await;
    });
    let pieces = stream::unfold(receiver, move |mut receiver| {
        let last_words = Arc::clone(&last_words);
        async move {
            let piece: String = match receiver.recv().await {
                Some(piece) => piece,
                None => last_words.lock().take()?,
            };
            Some((Ok::<_, Infallible>(Bytes::from(piece)), receiver))
        }
    });
    let mut response = Response::new(Body::from_stream(pieces));
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

struct Events {
    sender: mpsc::Sender<String>,
    /// What ends the stream.
    last_words: Arc<Mutex<Option<String>>>,
    write_timeout: Duration,
}

impl Events {
    async fn hand_on(&self, piece: String) -> Result<(), End> {
        let sent = timeout(self.write_timeout, self.sender.send(piece)).await;
        sent.map_err(|_| End::Slow)?.map_err(|_| End::Left)
    }
}

impl Link for Events {
    const ANSWERS_PINGS: bool = false;

    async fn receive(&mut self) -> Incoming {
        self.sender.closed().await;
        Incoming::End(End::Left)
    }

    async fn send(&mut self, messages: Vec<Message>) -> Result<(), End> {
        let mut piece = String::new();
        for message in messages {
            if message.kind == "hello" {
                piece.push_str(RETRY);
            }
            write_event(&mut piece, &message);
            if piece.len() >= PIECE_BYTES {
                self.hand_on(std::mem::take(&mut piece)).await?;
            }
        }
        match piece.is_empty() {
            true => Ok(()),
            false => self.hand_on(piece).await,
        }
    }

    async fn ping(&mut self) -> Result<(), End> {
        self.hand_on(PING.to_owned()).await
    }

    async fn close(&mut self, last: Message, _: End) {
        let mut words = String::new();
        write_event(&mut words, &last);
        *self.last_words.lock() = Some(words);
    }
}

/// JSON has no line ends, so an event is one line of data.
fn write_event(piece: &mut String, message: &Message) {
    let Message { kind, id, text } = message;
    write!(piece, "id: {id}\nevent: {kind}\ndata: {text}\n\n").expect("a String takes everything");
}
