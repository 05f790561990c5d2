//! A peer whose every message is written in the test.

use std::time::Duration;

use pulse_node::p2p::codec::Message;
use pulse_primitives::bitcoin::{
    consensus::serialize,
    p2p::{
        Address, Magic, ServiceFlags,
        message::{NetworkMessage, RawNetworkMessage},
        message_compact_blocks::SendCmpct,
        message_network::VersionMessage,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
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
    /// Whether the node wants new blocks at once, as compact blocks.
    pub is_to_announce: bool,
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
        let mut wire = Self {
            stream,
            is_to_announce: false,
        };
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
        let magic = Magic::from_bytes(regtest().magic);
        let frame = serialize(&RawNetworkMessage::new(magic, message));
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

    /// Command and payload of the next message that the node itself does not know how to
    /// read.
    pub async fn until_other(&mut self) -> (String, Vec<u8>) {
        let next = async {
            loop {
                let (command, payload) = self.next_frame().await?;
                let message = Message::decode(&command, payload.clone());
                if let Ok(Message::Other(command)) = message {
                    return Some((command, payload));
                }
            }
        };
        timeout(PATIENCE, next).await.unwrap().unwrap()
    }

    async fn next_frame(&mut self) -> Option<(String, Vec<u8>)> {
        let mut head = [0; 24];
        self.stream.read_exact(&mut head).await.ok()?;
        let command = head[4..16].iter().take_while(|byte| **byte != 0);
        let command = command.map(|byte| char::from(*byte)).collect();
        let len = u32::from_le_bytes(head[16..20].try_into().unwrap());
        let mut payload = vec![0; len as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((command, payload))
    }

    async fn next_that<T>(&mut self, mut find: impl FnMut(&Message) -> Option<T>) -> Option<T> {
        loop {
            // Whole messages are waiting when it matters that reading can be cut off.
            let (command, payload) = self.next_frame().await?;
            let message = Message::decode(&command, payload).unwrap();
            if let Message::Ping(nonce) = message {
                self.send(NetworkMessage::Pong(nonce)).await;
            }
            if let Message::SendCmpct { high_bandwidth, .. } = message {
                self.is_to_announce = high_bandwidth;
            }
            if let Some(found) = find(&message) {
                return Some(found);
            }
        }
    }
}
