//! WebSocket (RFC 6455): one JSON per text message.
//!
//! # Security
//! A message is never held in memory beyond its limit: the connection ends with code 1009.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, header},
    response::Response,
};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{io::AsyncReadExt, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Error,
        handshake::server::create_response_with_body,
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::{Utf8Bytes, coding::CloseCode},
        },
    },
};
use tracing::debug;

use super::{
    Admission, PushState, answer, bad_request, describe_errors,
    message::Message,
    session::{End, Incoming, Link, Session},
};
use crate::{
    access::{self, Meter},
    metrics,
    rest::openapi::Paths,
};

/// Bytes that are read at a time.
const READ_BYTES: usize = 4 << 10;
/// Bytes of messages after which they are written.
const WRITE_BYTES: usize = 16 << 10;
/// Time for the last words, and for the client's own.
const FAREWELL: Duration = Duration::from_secs(2);

/// The one subprotocol; a client need not offer it.
const PROTOCOL: &str = "pulse";

/// Answers the handshake, and serves the client from then on.
pub(super) async fn upgrade(State(push): State<PushState>, mut request: Request) -> Response {
    let response = create_response_with_body(&request, Body::empty);
    let response = match response {
        Err(error) => Err(bad_request(format!("not a WebSocket handshake: {error}"))),
        Ok(mut response) => {
            if access::subprotocols(request.headers()).any(|name| name == PROTOCOL) {
                let protocol = HeaderValue::from_static(PROTOCOL);
                (response.headers_mut()).insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
            }
            let from = request.extensions().get().copied();
            let meter = request.extensions().get().cloned();
            match push.admit(&request.headers().clone(), from).await {
                Err(refused) => Err(refused),
                Ok(admission) => {
                    let socket = hyper::upgrade::on(&mut request);
                    let served = serve(push.clone(), socket, admission, meter);
                    push.0.tracker.spawn(served);
                    Ok(response)
                }
            }
        }
    };
    answer("/ws", response)
}

/// Describes the route.
pub(super) fn describe(paths: &mut Paths) {
    let operation = paths
        .own_get("/ws", "A WebSocket for messages of either side")
        .about(
            "The handshake of RFC 6455. The client's messages are JSON texts such as \
         `{\"type\":\"subscribe\",\"channels\":[\"tips\"],\"addresses\":[\"bc1…\"]}`, the server's \
         are those of `/events`: docs/push.md.",
        );
    operation.response(
        101,
        json!({"description": "The connection is a WebSocket."}),
    );
    describe_errors(operation);
}

async fn serve(push: PushState, socket: OnUpgrade, admission: Admission, meter: Option<Meter>) {
    let _open = metrics::Open::push("ws");
    let socket = match socket.await {
        Ok(socket) => TokioIo::new(socket),
        Err(err) => {
            debug!(%err, "a connection did not become a WebSocket");
            return;
        }
    };
    let config = &push.0.config;
    let max_bytes = config.max_message_kib.get() << 10;
    let write_timeout = Duration::from_secs(config.write_timeout_secs.get());
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(WRITE_BYTES)
        .max_message_size(Some(max_bytes))
        .max_frame_size(Some(max_bytes));
    let stream = WebSocketStream::from_raw_socket(socket, Role::Server, Some(config)).await;
    let link = Socket {
        stream,
        write_timeout,
    };
    Session::new(push, admission, meter).run(link, None).await;
}

struct Socket {
    stream: WebSocketStream<TokioIo<Upgraded>>,
    write_timeout: Duration,
}

impl Socket {
    async fn write(&mut self, message: tungstenite::Message) -> Result<(), End> {
        let sent = timeout(self.write_timeout, self.stream.feed(message));
        sent.await.map_err(|_| End::Slow)?.map_err(|_| End::Left)
    }

    async fn flush(&mut self) -> Result<(), End> {
        let sent = timeout(self.write_timeout, self.stream.flush());
        sent.await.map_err(|_| End::Slow)?.map_err(|_| End::Left)
    }
}

impl Link for Socket {
    const ANSWERS_PINGS: bool = true;

    async fn receive(&mut self) -> Incoming {
        match self.stream.next().await {
            None => Incoming::End(End::Left),
            Some(Ok(tungstenite::Message::Text(text))) => Incoming::Text(text.as_str().to_owned()),
            Some(Ok(tungstenite::Message::Binary(_))) => Incoming::NotText,
            Some(Ok(tungstenite::Message::Close(_))) => Incoming::End(End::Left),
            Some(Ok(_)) => Incoming::Sign,
            Some(Err(Error::Capacity(_))) => Incoming::End(End::TooLong),
            Some(Err(_)) => Incoming::End(End::Left),
        }
    }

    async fn send(&mut self, messages: Vec<Message>) -> Result<(), End> {
        for message in messages {
            let text = Utf8Bytes::from(&*message.text);
            self.write(tungstenite::Message::Text(text)).await?;
        }
        self.flush().await
    }

    async fn ping(&mut self) -> Result<(), End> {
        let ping = tungstenite::Message::Ping(Default::default());
        self.write(ping).await?;
        self.flush().await
    }

    async fn close(&mut self, last: Message, end: End) {
        let code = match end {
            End::Left => return,
            End::Stop => CloseCode::Away,
            End::Slow | End::Silent | End::KeyRevoked => CloseCode::Policy,
            End::TooLong => CloseCode::Size,
            End::NotSynced => CloseCode::Again,
        };
        let text = Utf8Bytes::from(&*last.text);
        let frame = CloseFrame {
            code,
            reason: end.reason().into(),
        };
        // There is nobody to tell if this fails.
        let _ = timeout(FAREWELL, async {
            self.stream.feed(tungstenite::Message::Text(text)).await?;
            self.stream.close(Some(frame)).await?;
            // The client closes, or the time is over; only then is the socket closed, so
            // that what was sent is not lost with what it has sent meanwhile.
            while let Some(Ok(_)) = self.stream.next().await {}
            if end == End::TooLong {
                let mut rest = [0; READ_BYTES];
                while self.stream.get_mut().read(&mut rest).await? > 0 {}
            }
            Ok::<_, Error>(())
        })
        .await;
    }
}
