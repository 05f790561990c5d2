//! The first bytes of a connection, before its transport is known.

use std::time::Duration;

use pulse_p2p::{
    codec::encode_frame,
    transport::{Connection, TransportError},
};

use super::{against, block_on, outcome, read_all};
use crate::seeds::{self, MAGIC};

/// The other end hangs up in time, so this is never reached.
const LIMIT: Duration = Duration::from_secs(60);

/// A peer connects and says the input.
pub fn run(data: &[u8]) -> u64 {
    block_on(against(data, |stream| async {
        match Connection::accept(stream, MAGIC, true, LIMIT).await {
            Ok(mut connection) => outcome((connection.kind(), read_all(&mut connection).await.0)),
            Err(err) => error_kind(&err),
        }
    }))
}

/// We connect, and the peer answers with the input.
pub fn run_outbound(data: &[u8]) -> u64 {
    block_on(against(data, |stream| async {
        match Connection::connect_v2(stream, MAGIC, LIMIT).await {
            // It would need our key, which is new every time.
            Ok(_) => panic!("a recorded handshake was accepted"),
            Err(err) => error_kind(&err),
        }
    }))
}

fn error_kind(err: &TransportError) -> u64 {
    assert!(!matches!(err, TransportError::Timeout), "it must not wait");
    outcome(std::mem::discriminant(err))
}

/// Of v1, of v1 in another network, and of v2 with short and with endless garbage.
pub fn seeds() -> Vec<Vec<u8>> {
    let version = pulse_p2p::message::Outgoing::from(
        pulse_primitives::bitcoin::p2p::message::NetworkMessage::Version(seeds::version()),
    );
    let payload = version.payload();
    vec![
        encode_frame("version", &payload, MAGIC),
        encode_frame("version", &payload, [1, 2, 3, 4]),
        vec![0x5a; 64 + 16 + 20],
        vec![0x5a; 64 + 4095 + 16 + 100],
    ]
}
