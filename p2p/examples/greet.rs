//! Shakes hands with a real peer and says what it heard, for trying the wire by hand:
//!
//! ```sh
//! cargo run --release -p pulse-p2p --example greet -- 127.0.0.1:18444 v2
//! cargo run --release -p pulse-p2p --example greet -- listen 127.0.0.1:18555
//! ```
//!
//! The network is regtest.

#![allow(clippy::print_stdout, reason = "it is there to print")]

use std::{
    error::Error,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pulse_p2p::{
    ConnectionKind, PeerAddr,
    dial::{DialOptions, connect},
    message::Message,
    transport::Connection,
    version::{LocalVersion, Nonces, USER_AGENT, handshake, local_services},
};
use pulse_primitives::bitcoin::{Network, p2p::message::NetworkMessage};
use tokio::{net::TcpListener, time::timeout};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let magic = Network::Regtest.magic().to_bytes();
    let limit = Duration::from_secs(30);
    let (mut connection, kind) = match arguments.as_slice() {
        ["listen", addr] => {
            let (stream, from) = TcpListener::bind(addr).await?.accept().await?;
            println!("called by {from}");
            let connection = Connection::accept(stream, magic, true, limit).await?;
            (connection, ConnectionKind::Inbound)
        }
        [addr, transport @ ("v1" | "v2")] => {
            let addr = PeerAddr::parse(addr, 18444).ok_or("not an address")?;
            let options = DialOptions {
                v2: *transport == "v2",
                ..DialOptions::new(magic)
            };
            let connection = connect(&addr, &options).await?;
            (connection, ConnectionKind::Manual)
        }
        _ => return Err("usage: greet HOST:PORT v1|v2, or greet listen HOST:PORT".into()),
    };
    println!("transport {}", connection.kind().name());
    let nonces = Nonces::default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let local = LocalVersion {
        services: local_services(true, false),
        user_agent: USER_AGENT,
        start_height: 0,
        time: i64::try_from(now)?,
        relay: true,
        limited_peers: false,
        nonces: &nonces,
    };
    let remote = timeout(limit, handshake(&mut connection, &local, kind)).await??;
    println!("{remote:?}");
    connection.write(&NetworkMessage::Ping(7).into()).await?;
    loop {
        let (message, len) = timeout(limit, connection.read()).await??;
        println!("{len} bytes: {message:?}");
        match message {
            Message::Pong(7) => return Ok(()),
            Message::Ping(nonce) => {
                let pong = NetworkMessage::Pong(nonce).into();
                connection.write(&pong).await?;
            }
            _ => {}
        }
    }
}
