//! A WebSocket client that hides nothing.

use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio_tungstenite::tungstenite::{
    Error, Message, WebSocket, client, client::IntoClientRequest, http::HeaderValue,
    protocol::CloseFrame,
};

use crate::e2e::common::DEADLINE;

pub struct Client {
    socket: WebSocket<TcpStream>,
    /// How the server said good-bye.
    pub closed: Option<CloseFrame>,
}

impl Client {
    /// A client that has read the greeting.
    pub fn connect(addr: SocketAddr, path: &str) -> Self {
        let mut client = Self::try_connect(addr, path, None).unwrap();
        assert_eq!(client.next().unwrap()["type"], "hello");
        client
    }

    /// Status and text if the handshake is refused.
    pub fn try_connect(
        addr: SocketAddr,
        path: &str,
        origin: Option<&str>,
    ) -> Result<Self, (u16, String)> {
        let origin = origin.map(|origin| ("origin", origin));
        Self::try_connect_with(addr, path, origin)
    }

    /// The same with headers.
    pub fn try_connect_with<'h>(
        addr: SocketAddr,
        path: &str,
        headers: impl IntoIterator<Item = (&'static str, &'h str)>,
    ) -> Result<Self, (u16, String)> {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut request = format!("ws://{addr}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().insert(name, value);
        }
        match client(request, stream) {
            Ok((socket, _)) => Ok(Self {
                socket,
                closed: None,
            }),
            Err(tokio_tungstenite::tungstenite::HandshakeError::Failure(Error::Http(response))) => {
                let text = response.body().clone().unwrap_or_default();
                let text = String::from_utf8(text).unwrap();
                Err((response.status().as_u16(), text))
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string());
    }

    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    pub fn send_raw(&mut self, message: Message) -> Result<(), Error> {
        self.socket.send(message)
    }

    /// The next message; `None` if the server has closed. Without those about whether the
    /// node is synced, which it is not for a moment in a reorganisation of three blocks.
    pub fn next(&mut self) -> Option<Value> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if message["type"] != "status" {
                        return Some(message);
                    }
                }
                Ok(Message::Close(frame)) => self.closed = frame,
                Ok(_) => {}
                Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => {
                    return None;
                }
                Err(Error::Io(err)) if err.kind() == std::io::ErrorKind::ConnectionReset => {
                    return None;
                }
                Err(error) => panic!("no message: {error}"),
            }
        }
    }

    /// Messages until one of `kind`, which is returned; others are dropped.
    #[track_caller]
    pub fn next_of(&mut self, kind: &str) -> Value {
        self.until(|message| message["type"] == kind)
    }

    /// Messages until `wanted` holds of one, which is returned.
    #[track_caller]
    pub fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        let mut seen = Vec::new();
        loop {
            let message = self
                .next()
                .unwrap_or_else(|| panic!("closed after {seen:#?}"));
            if wanted(&message) {
                return message;
            }
            seen.push(message);
            assert!(Instant::now() < deadline, "no such message in {seen:#?}");
        }
    }

    /// The answer to a ping, which comes behind everything before it. What came before.
    pub fn drain(&mut self) -> Vec<Value> {
        self.send_text(r#"{"type":"ping","request":"drain"}"#);
        let mut before = Vec::new();
        loop {
            let message = self.next().expect("the server is there");
            if message["type"] == "pong" {
                return before;
            }
            before.push(message);
        }
    }

    /// That nothing comes for a moment.
    pub fn assert_silent(&mut self) {
        let stream = self.socket.get_ref();
        let short = Some(Duration::from_millis(300));
        stream.set_read_timeout(short).unwrap();
        let read = self.socket.read();
        assert!(matches!(&read, Err(Error::Io(_))), "{read:?}");
        let stream = self.socket.get_ref();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
    }
}
