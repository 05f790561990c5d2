//! A peer whose every message is written in the test.

use std::time::Duration;

use pulse_node::p2p::codec::{Message, encode_message, read_message};
use pulse_primitives::bitcoin::p2p::{
    Address, ServiceFlags, message::NetworkMessage, message_compact_blocks::SendCmpct,
    message_network::VersionMessage,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::regtest;

const PATIENCE: Duration = Duration::from_secs(30);
/// Time in which something that must not come would have come.
const SILENCE: Duration = Duration::from_millis(400);

/// A connection with the node under test, after the handshake.
pub struct Wire {
    stream: TcpStream,
}

impl Wire {
    /// A port for the node to connect to.
    pub async fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        (listener, addr)
    }

    /// Takes the node's connection.
    pub async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        Self::shake_hands(stream).await
    }

    /// Connects to the node.
    pub async fn connect(addr: std::net::SocketAddr) -> Self {
        Self::shake_hands(TcpStream::connect(addr).await.unwrap()).await
    }

    async fn shake_hands(stream: TcpStream) -> Self {
        let mut wire = Self { stream };
        let nobody = Address::new(&([0, 0, 0, 0], 0).into(), ServiceFlags::NONE);
        let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
        let nonce = rand::random();
        let mut version = VersionMessage::new(
            services,
            0,
            nobody.clone(),
            nobody,
            nonce,
            "/wire:1/".to_owned(),
            0,
        );
        version.version = 70_016;
        wire.send(NetworkMessage::Version(version)).await;
        wire.send(NetworkMessage::Verack).await;
        wire.until(|message| matches!(message, Message::Verack).then_some(()))
            .await;
        wire
    }

    /// Says that it speaks compact blocks.
    pub async fn send_cmpct(&mut self, high_bandwidth: bool) {
        self.send(NetworkMessage::SendCmpct(SendCmpct {
            send_compact: high_bandwidth,
            version: 2,
        }))
        .await;
    }

    /// Sends a message.
    pub async fn send(&mut self, message: NetworkMessage) {
        let frame = encode_message(message, regtest().magic);
        self.stream.write_all(&frame).await.unwrap();
    }

    /// Reads until a message is what `find` looks for; the others are skipped. Pings are
    /// answered.
    pub async fn until<T>(&mut self, find: impl FnMut(&Message) -> Option<T>) -> T {
        timeout(PATIENCE, self.next_that(find))
            .await
            .expect("the message came in time")
            .expect("the connection stays")
    }

    /// Whether no message that `find` looks for comes for a while.
    pub async fn silent<T>(&mut self, find: impl FnMut(&Message) -> Option<T>) -> bool {
        timeout(SILENCE, self.next_that(find)).await.is_err()
    }

    /// Waits until the node hangs up.
    pub async fn until_closed(&mut self) {
        let closed = self.next_that(|_| None::<()>);
        assert!(timeout(PATIENCE, closed).await.unwrap().is_none());
    }

    async fn next_that<T>(&mut self, mut find: impl FnMut(&Message) -> Option<T>) -> Option<T> {
        loop {
            // Whole messages are waiting when it matters that reading can be cut off.
            let (message, _) = read_message(&mut self.stream, regtest().magic).await.ok()?;
            if let Message::Ping(nonce) = message {
                self.send(NetworkMessage::Pong(nonce)).await;
            }
            if let Some(found) = find(&message) {
                return Some(found);
            }
        }
    }
}
